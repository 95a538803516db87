//! Mneme.

fn main() {}
