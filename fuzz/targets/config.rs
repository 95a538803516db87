#![no_main]

// An alias that names what it is part of is followed for as many levels as the reader takes.
mneme_fuzz::target!(mneme_parsers::config::check, 4 << 20, 512);
