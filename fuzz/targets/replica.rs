#![no_main]

// Every table that a peer names has shards and a digest of its own.
mneme_fuzz::target!(mneme_parsers::replica::check, 8 << 20, 8_192);
