#![no_main]

// The library that reads the message makes room for as many records as its head names, 65535 of each kind.
mneme_fuzz::target!(mneme_parsers::dns::check, 32 << 20, 512);
