//! The reference of the README, made from the flags themselves; a test fails when the README is stale.

use std::fmt::Write;

use clap::CommandFactory;

use super::Cli;

/// A table of all flags of `run` in Markdown.
pub fn reference() -> String {
    let mut text = String::from("| Flag | Environment | In the file | Meaning |\n|---|---|---|---|\n");
    let command = Cli::command();
    let run = command.find_subcommand("run").expect("run is a command");
    for argument in run.get_arguments().filter(|argument| !argument.is_hide_set()) {
        let (Some(long), Some(environment)) = (argument.get_long(), argument.get_env()) else { continue };
        let values = argument.get_possible_values();
        let is_flag = !argument.get_action().takes_values();
        let value = match (is_flag, values.is_empty()) {
            (true, _) => String::new(),
            (_, true) => {
                let names = argument.get_value_names().unwrap_or_default();
                names.iter().map(|name| format!(" {name}")).collect()
            }
            (_, false) => {
                let names: Vec<&str> = values.iter().map(clap::builder::PossibleValue::get_name).collect();
                format!(" {}", names.join("\\|"))
            }
        };
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let in_file = if long == "config" { "".to_owned() } else { format!("`{}`", camel_case(long)) };
        let environment = environment.to_string_lossy();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| `--{long}{value}` | `{environment}` | {in_file} | {help} |");
    }
    text
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('-');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |text, word| {
        let (initial, rest) = word.split_at(1);
        text + &initial.to_uppercase() + rest
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_has_the_reference() {
        let readme = include_str!("../../../README.md");
        assert!(readme.contains(&reference()), "put this into README.md:\n{}", reference());
    }

    #[test]
    fn every_flag_is_in_the_environment_under_its_name() {
        let command = Cli::command();
        let run = command.find_subcommand("run").expect("run is a command");
        for argument in run.get_arguments().filter(|argument| !argument.is_hide_set()) {
            let long = argument.get_long().expect("every argument is a flag");
            let expected = format!("MNEME_{}", long.to_uppercase().replace('-', "_"));
            if long != "help" {
                assert_eq!(argument.get_env().and_then(|name| name.to_str()), Some(expected.as_str()));
            }
        }
    }
}
