//! The YAML file: tables and any flag, in camelCase. Every error is told, with its line.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mneme_api::{TableConfig, TableConfigError, TableName, parse_duration};
use serde::{Deserialize, Deserializer};
use serde_yaml::{Mapping, Value};

use super::reason::reason;
use crate::storage::Durability;
use crate::telemetry::LogFormat;

/// Bytes of a configuration file, at most.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// One thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("failed to read {path}: {reason}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Something in the file.
    #[error("line {line}: {reason}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A value that cannot be used.
    #[error("{name}: {reason}")]
    Value {
        /// Name in the file.
        name: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Settings of a table.
    #[error(transparent)]
    Table(TableConfigError),
    /// A table is declared twice.
    #[error("table {table} is declared twice")]
    Twice {
        /// Its name.
        table: TableName,
    },
    /// Two ports on one address.
    #[error("{flag} is the address of {other} too: {address}")]
    SameAddress {
        /// One.
        flag: &'static str,
        /// The other.
        other: &'static str,
        /// Where both would be.
        address: SocketAddr,
    },
    /// A port that strangers reach.
    #[error(
        "{flag} is reached from beyond this machine: give {needs}, or --no-auth if nobody else can reach it"
    )]
    Exposed {
        /// Which port.
        flag: &'static str,
        /// What is missing.
        needs: &'static str,
    },
}

/// A duration as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurationText(pub Duration);

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_duration(&String::deserialize(deserializer)?).map(Self).map_err(serde::de::Error::custom)
    }
}

/// What the file says; the same names as the flags.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FileConfig {
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--node-name`
    pub node_name: Option<String>,
    /// `--client-addr`
    pub client_addr: Option<SocketAddr>,
    /// `--peer-addr`
    pub peer_addr: Option<SocketAddr>,
    /// `--admin-addr`
    pub admin_addr: Option<SocketAddr>,
    /// `--advertise`
    pub advertise: Option<String>,
    /// `--cluster`
    pub cluster: Option<String>,
    /// `--peer`, a list
    pub peer: Option<Vec<String>>,
    /// `--peers-file`
    pub peers_file: Option<PathBuf>,
    /// `--peers-dns`, a list
    #[serde(deserialize_with = "one_or_more")]
    pub peers_dns: Option<Vec<String>>,
    /// `--peers-srv`, a list
    #[serde(deserialize_with = "one_or_more")]
    pub peers_srv: Option<Vec<String>>,
    /// `--dns-server`
    pub dns_server: Option<SocketAddr>,
    /// `--durability`
    #[serde(deserialize_with = "choice")]
    pub durability: Option<Durability>,
    /// `--join-timeout`
    pub join_timeout: Option<DurationText>,
    /// `--shutdown-grace`
    pub shutdown_grace: Option<DurationText>,
    /// `--auth-tokens-file`
    pub auth_tokens_file: Option<PathBuf>,
    /// `--cluster-secret-file`
    pub cluster_secret_file: Option<PathBuf>,
    /// `--no-auth`
    pub no_auth: Option<bool>,
    /// `--log-format`
    #[serde(deserialize_with = "choice")]
    pub log_format: Option<LogFormat>,
    /// `--log-level`
    pub log_level: Option<String>,
    /// The tables; without them there is one, `sessions`.
    pub tables: Option<Vec<TableConfig>>,
}

fn choice<'de, D: Deserializer<'de>, T: clap::ValueEnum>(deserializer: D) -> Result<Option<T>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let names = || {
        let names = T::value_variants().iter().filter_map(clap::ValueEnum::to_possible_value);
        names.map(|value| value.get_name().to_owned()).collect::<Vec<_>>().join(" or ")
    };
    T::from_str(&text, false).map(Some).map_err(|_| serde::de::Error::custom(format!("give {}", names())))
}

fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMore {
        One(String),
        More(Vec<String>),
    }
    Ok(Some(match OneOrMore::deserialize(deserializer)? {
        OneOrMore::One(name) => vec![name],
        OneOrMore::More(names) => names,
    }))
}

/// Reads a configuration file.
///
/// # Errors
///
/// Every [`ConfigError`] there is in it.
pub fn read(path: &Path) -> Result<FileConfig, Vec<ConfigError>> {
    let failed = |reason: String| vec![ConfigError::Read { path: path.to_owned(), reason }];
    let length = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if length > FILE_BYTES_MAX {
        return Err(failed("it is larger than 1 MiB".to_owned()));
    }
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    check(&text)
}

/// Reads the text of a configuration file.
///
/// # Errors
///
/// Every [`ConfigError`] there is in it.
pub fn check(text: &str) -> Result<FileConfig, Vec<ConfigError>> {
    let at = |line, reason| ConfigError::Line { line, reason };
    if text.trim().is_empty() {
        return Ok(FileConfig::default());
    }
    let value: Value = match serde_yaml::from_str(text) {
        Ok(value) => value,
        Err(error) => {
            let line = error.location().map_or(1, |location| location.line());
            return Err(vec![at(line_of_twin(text, &error).unwrap_or(line), reason(&error))]);
        }
    };
    let Value::Mapping(fields) = &value else {
        if value.is_null() {
            return Ok(FileConfig::default());
        }
        return Err(vec![at(1, "the file is not a mapping of names to values".to_owned())]);
    };
    let mut errors = Vec::new();
    for (name, field) in fields {
        if name.as_str() == Some("tables") && field.is_sequence() {
            check_tables(text, field, &mut errors);
            continue;
        }
        let alone = Mapping::from_iter([(name.clone(), field.clone())]);
        if let Err(error) = serde_yaml::from_value::<FileConfig>(alone.into()) {
            errors
                .push(at(line_of(text, &[name_step(name)]), format!("{}: {}", shown(name), reason(&error))));
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    serde_yaml::from_value(value).map_err(|error| vec![at(1, reason(&error))])
}

fn check_tables(text: &str, tables: &Value, errors: &mut Vec<ConfigError>) {
    if tables.as_sequence().is_some_and(Vec::is_empty) {
        let line = line_of(text, &[Step::Name("tables".to_owned())]);
        errors.push(ConfigError::Line { line, reason: "tables: declare at least one".to_owned() });
    }
    let mut seen: Vec<String> = Vec::new();
    for (index, table) in tables.as_sequence().into_iter().flatten().enumerate() {
        let element = [Step::Name("tables".to_owned()), Step::Element(index)];
        let mut tell = |steps: &[Step], reason: String| {
            let steps: Vec<Step> = element.iter().chain(steps).cloned().collect();
            errors.push(ConfigError::Line { line: line_of(text, &steps), reason });
        };
        let Value::Mapping(fields) = table else {
            tell(&[], format!("tables[{index}]: a table is a mapping that begins with `- name:`"));
            continue;
        };
        let mut is_good = true;
        for (name, field) in fields {
            let mut alone = Mapping::from_iter([(Value::from("name"), Value::from("a"))]);
            alone.insert(name.clone(), field.clone());
            if let Err(error) = serde_yaml::from_value::<TableConfig>(alone.into()) {
                is_good = false;
                tell(&[name_step(name)], format!("tables[{index}].{}: {}", shown(name), reason(&error)));
            }
        }
        if !is_good {
            continue;
        }
        match serde_yaml::from_value::<TableConfig>(table.clone()) {
            Err(error) => tell(&[], format!("tables[{index}]: {}", reason(&error))),
            Ok(table) => {
                if let Err(error) = table.validate() {
                    tell(&[], error.to_string());
                }
                if seen.iter().any(|name| name == table.name.as_str()) {
                    tell(&[], format!("table {} is declared twice", table.name));
                }
                seen.push(table.name.to_string());
            }
        }
    }
}

/// The line of a name that is there twice: serde_yaml names the mapping's begin.
fn line_of_twin(text: &str, error: &serde_yaml::Error) -> Option<usize> {
    let message = error.to_string();
    let name = message.split_once("duplicate entry with key \"")?.1.split('"').next()?.to_owned();
    let is_it =
        |line: &str| content(line).is_some_and(|(_, rest)| rest.strip_prefix(&name).is_some_and(is_name_end));
    let (index, _) = text.lines().enumerate().filter(|(_, line)| is_it(line)).nth(1)?;
    Some(index + 1)
}

fn shown(name: &Value) -> String {
    name.as_str().map_or_else(|| "a name that is no text".to_owned(), str::to_owned)
}

/// A step from a value to a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Name(String),
    Element(usize),
}

fn name_step(name: &Value) -> Step {
    Step::Name(name.as_str().unwrap_or_default().to_owned())
}

/// The line of a part, from 1: found by indentation, so in flow style it is the line of what contains it.
fn line_of(text: &str, steps: &[Step]) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let (mut found, mut from, mut column) = (0, 0, 0);
    for step in steps {
        let next = match step {
            Step::Name(name) => find_name(&lines, from, column, name),
            Step::Element(index) => find_element(&lines, from, *index),
        };
        let Some((line, inner)) = next else { return found + 1 };
        found = line;
        (from, column) = match step {
            // What belongs to a name is on its line or below; an element's first name is on its own line.
            Step::Name(_) => (line + 1, inner),
            Step::Element(_) => (line, inner),
        };
    }
    found + 1
}

/// Column of a line's first name, list dashes skipped; `None` for blank lines and comments.
fn content(line: &str) -> Option<(usize, &str)> {
    let rest = line.trim_start_matches([' ', '-']);
    (!rest.is_empty() && !rest.starts_with('#')).then_some((line.len() - rest.len(), rest))
}

fn find_name(lines: &[&str], from: usize, column: usize, name: &str) -> Option<(usize, usize)> {
    for (index, line) in lines.iter().enumerate().skip(from) {
        let Some((at, rest)) = content(line) else { continue };
        if at == column && rest.trim_matches(['"', '\'']).strip_prefix(name).is_some_and(is_name_end) {
            return Some((index, column));
        }
    }
    None
}

fn is_name_end(rest: &str) -> bool {
    rest.trim_start_matches(['"', '\'']).trim_start().starts_with(':')
}

fn find_element(lines: &[&str], from: usize, index: usize) -> Option<(usize, usize)> {
    let dash = |line: &&str| line.find('-').filter(|at| line[..*at].trim().is_empty());
    let indent = lines.iter().skip(from).find_map(dash)?;
    let elements = lines.iter().enumerate().skip(from).filter(|(_, line)| dash(line) == Some(indent));
    let (found, line) = elements.clone().nth(index)?;
    Some((found, content(line).map_or(indent, |(at, _)| at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_lines(text: &str, expected: &[(usize, &str)]) {
        let errors = check(text).err().unwrap_or_default();
        let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), expected.len(), "{told:?}");
        for ((line, part), told) in expected.iter().zip(&told) {
            assert!(told.starts_with(&format!("line {line}: ")) && told.contains(part), "{told}");
        }
    }

    #[test]
    fn a_good_file_is_read() {
        let text = "cluster: shop\npeer: [a, 'b:1']\npeersDns: cache.shop.svc\ndurability: commit\n\
                    joinTimeout: 3s\nnoAuth: true\ntables:\n  - name: sessions\n    defaultTtl: 30m\n  - name: carts\n    kind: cache\n";
        let config = check(text).expect("valid");
        assert_eq!(config.peers_dns, Some(vec!["cache.shop.svc".to_owned()]));
        assert_eq!(config.join_timeout, Some(DurationText(Duration::from_secs(3))));
        assert_eq!(config.tables.map(|tables| tables.len()), Some(2));
        assert_eq!(check("# nothing\n").expect("valid"), FileConfig::default());
    }

    #[test]
    fn every_error_has_its_line() {
        check_lines(
            "cluster: shop\nprot: 1\n\nclientAddr: here\n# a comment\ndurability: sometimes\n",
            &[(2, "prot"), (4, "clientAddr"), (6, "fsync or commit")],
        );
        check_lines(
            "tables:\n  - name: sessions\n    ttl: 5m\n  - name: Bad\n    defaultTtl: soon\n  - kind: cache\n",
            &[(3, "ttl"), (4, "name"), (5, "defaultTtl"), (6, "name")],
        );
        check_lines(
            "tables:\n- name: a\n  defaultTtl: 40d\n- name: b\n- name: b\n",
            &[(2, "defaultTtl is longer"), (5, "twice")],
        );
    }

    #[test]
    fn reasons_speak_of_the_file_and_not_of_the_program() {
        check_lines("tables: []\n", &[(1, "at least one")]);
        check_lines(
            "tables:\n- name: a\n  kind: other\n  maxBytes: -1\n  maxValueBytes: big\n",
            &[(3, "`other` is not known"), (4, "a number of at least 0"), (5, "a number of at least 0")],
        );
        check_lines(
            "peer: one\nnoAuth: maybe\npeersDns: {a: b}\nprot: 1\n",
            &[(1, "a list"), (2, "true or false"), (3, "a list of texts"), (4, "there is no setting `prot`")],
        );
        let text =
            "tables:\n- name: a\n  kind: other\n  maxBytes: -1\npeer: one\nnoAuth: maybe\npeersDns: {a: b}\n";
        for error in check(text).expect_err("four are wrong") {
            for word in ["u64", "variant", "sequence", "enum", "boolean", "invalid type"] {
                assert!(!error.to_string().contains(word), "{error}");
            }
        }
    }

    #[test]
    fn what_is_no_yaml_is_one_error() {
        check_lines("cluster: [\n", &[(2, "")]);
        check_lines("just text\n", &[(1, "mapping")]);
        check_lines("cluster: a\ncluster: b\n", &[(2, "duplicate")]);
    }
}
