#![no_main]

mneme_fuzz::target!(mneme_parsers::config::check);
