//! The domain core of Mneme: one replica as a function of its inputs.

pub mod effect;
pub mod event;
pub mod id;
pub mod limits;
pub mod message;
pub mod record;
pub mod time;
pub mod version;
pub mod version_vector;

pub use effect::Effect;
pub use event::Event;
