//! The domain core of Mneme: one replica as a function of its inputs.
//!
//! No I/O, no clock, no randomness, no async: whatever happens comes in as an [`Event`] with the
//! time, whatever is wanted goes out as [`Effect`]s. A whole cluster runs in one thread, and a
//! failure is a seed.
//!
//! Reading order: [`id`] and [`version`] (who wrote what, when), [`record`] (the two registers and
//! their merge), [`version_vector`] (what is held), [`table`] (what readers see), [`message`] (what
//! replicas say to each other), [`event`] and [`effect`].

mod acknowledgement;
pub mod codec;
mod digest;
pub mod effect;
pub mod event;
mod expiry;
pub mod gate;
pub mod id;
pub mod limits;
mod membership;
pub mod message;
pub mod record;
pub mod replica;
pub mod status;
pub mod table;
mod tables;
pub mod time;
pub mod version;
pub mod version_vector;

pub use effect::Effect;
pub use event::Event;
pub use replica::{Recovery, Replica};
