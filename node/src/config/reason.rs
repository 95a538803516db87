//! Reasons in the words of the file: what serde says of a value speaks of the program's types.

/// What stands in serde's words for what a person writes.
const WORDS: [(&str, &str); 12] = [
    ("expected u64", "expected a number of at least 0"),
    ("expected a sequence", "expected a list"),
    ("expected sequence", "expected a list"),
    ("expected a string", "expected a text"),
    ("expected path string", "expected a path"),
    ("expected a boolean", "expected true or false"),
    ("expected struct TableConfig", "expected the settings of a table"),
    ("invalid type: sequence", "not a list here"),
    ("invalid type: map", "not a mapping here"),
    ("invalid type: ", ""),
    ("invalid value: ", ""),
    ("data did not match any variant of untagged enum OneOrMore", "expected a text or a list of texts"),
];

/// An error without the place that serde_yaml appends (the place is ours to say), in words of the file.
pub(super) fn reason(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    let text = text.find(" at line ").map_or(text.as_str(), |end| &text[..end]);
    if let Some((value, known)) = split_unknown(text, "unknown variant ") {
        return format!("{value} is not known: {known}");
    }
    if let Some((name, known)) = split_unknown(text, "unknown field ") {
        return format!("there is no setting {name}: {known}");
    }
    let text = text.replace("integer `", "`").replace("string \"", "\"").replace("boolean `", "`");
    WORDS.iter().fold(text, |text, (theirs, ours)| text.replace(theirs, ours))
}

/// Takes "unknown variant `x`, expected `a` or `b`" apart.
fn split_unknown<'a>(text: &'a str, begin: &str) -> Option<(&'a str, &'a str)> {
    text.strip_prefix(begin)?.split_once(", ")
}
