//! Mneme.
