#![no_main]

// An alias that names what it is part of is followed for as many levels as the reader takes, and each part of a file is
// repeated a hundred times before the reader gives up.
mneme_fuzz::target!(mneme_parsers::config::check, 4 << 20, 4096);
