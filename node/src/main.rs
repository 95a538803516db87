//! `mneme-node`: parse, run, exit code.

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use mneme_node::config::{self, Cli, Command, Config, ConfigError, FileConfig, RunFlags};
use mneme_node::dev::dev;
use mneme_node::dump::{DumpError, dump};
use mneme_node::node::{self, RunError};
use mneme_node::peers::discovery::Source;
use mneme_node::shutdown::{abort_on_panic, asked_to_stop};
use mneme_node::telemetry;
use rustix::fs::Mode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Wrong flags.
const USAGE: u8 = 64;
/// The file or a port of the data directory cannot be used.
const STORAGE: u8 = 74;
/// Wrong or missing configuration.
const CONFIGURATION: u8 = 78;

fn main() -> ExitCode {
    abort_on_panic();
    // Whatever this program writes may hold sessions: it is its user's alone.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors. Where the text cannot be written, the exit code says it.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    // This thread alone for links, clock and writer; connections of clients have more, see `http::workers`. A runtime that
    // could have several threads costs about a tenth more for each write.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("mneme-node: failed to start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(run(cli.command));
    // Standard input may still be read by a thread that nobody can stop.
    runtime.shutdown_background();
    code
}

async fn run(command: Command) -> ExitCode {
    match command {
        Command::Run(flags) => run_node(*flags).await,
        Command::Dev { nodes, dir } => {
            let ended = dev(nodes, &dir, asked_to_stop(false)).await;
            ended.map_or_else(|error| fail(&error, 1), |()| ExitCode::SUCCESS)
        }
        Command::CheckConfig { file } => match read_config(Some(&file), RunFlags::for_check()) {
            Ok(config) => {
                // Where the text cannot be written, the exit code says it.
                let _ = writeln!(std::io::stdout(), "{}: no errors", file.display());
                tell_missing(&config);
                ExitCode::SUCCESS
            }
            Err(errors) => tell(&errors, Some(&file)),
        },
        Command::Dump { data_dir, sqlite, drop_table } => {
            match dump(&data_dir, sqlite.as_deref(), &drop_table).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error @ (DumpError::TableName { .. } | DumpError::TableUnknown { .. })) => {
                    fail(&error, USAGE)
                }
                Err(error) => fail(&error, STORAGE),
            }
        }
    }
}

async fn run_node(flags: RunFlags) -> ExitCode {
    let (path, stop_with_stdin) = (flags.config.clone(), flags.stop_with_stdin);
    let config = match read_config(path.as_deref(), flags) {
        Ok(config) => config,
        Err(errors) => return tell(&errors, path.as_deref()),
    };
    let _log = match telemetry::start(config.log_format, &config.log_level) {
        Ok(log) => log,
        Err(reason) => {
            eprintln!("mneme-node: {reason}");
            return ExitCode::from(CONFIGURATION);
        }
    };
    match node::run(config, asked_to_stop(stop_with_stdin)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = match &error {
                RunError::Storage(_) => STORAGE,
                RunError::Mismatch(_) | RunError::Secrets { .. } => CONFIGURATION,
                RunError::Listen { .. }
                | RunError::Threads(_)
                | RunError::Dns(_)
                | RunError::Refused(_)
                | RunError::Died(_)
                | RunError::Grace => 1,
            };
            let text = telemetry::chain(&error);
            tracing::error!(error = %text, "the node ended");
            ExitCode::from(code)
        }
    }
}

fn read_config(path: Option<&Path>, flags: RunFlags) -> Result<Config, Vec<ConfigError>> {
    let file = path.map(config::read).transpose()?.unwrap_or_else(FileConfig::default);
    Config::merge(flags, file)
}

/// Files that are named and not here. No error: a file may be checked on another machine than its node's.
fn tell_missing(config: &Config) {
    let peers = config.sources.iter().filter_map(|source| match source {
        Source::File(path) => Some(("peersFile", path)),
        Source::List(_) | Source::Dns(_) => None,
    });
    let secrets =
        [("authTokensFile", &config.auth_tokens_file), ("clusterSecretFile", &config.cluster_secret_file)];
    let secrets = secrets.into_iter().filter_map(|(name, path)| Some((name, path.as_ref()?)));
    for (name, path) in peers.chain(secrets).filter(|(_, path)| !path.exists()) {
        println!("note: {name}: there is no {} on this machine", path.display());
    }
}

fn tell(errors: &[ConfigError], path: Option<&Path>) -> ExitCode {
    for error in errors {
        match path {
            Some(path) => eprintln!("{}: {error}", path.display()),
            None => eprintln!("mneme-node: {error}"),
        }
    }
    // Without a file all values are from flags; what they leave open to strangers is the configuration's fault.
    let is_usage = path.is_none() && !errors.iter().any(|error| matches!(error, ConfigError::Exposed { .. }));
    ExitCode::from(if is_usage { USAGE } else { CONFIGURATION })
}

fn fail(error: &dyn Error, code: u8) -> ExitCode {
    eprintln!("mneme-node: {}", telemetry::chain(error));
    ExitCode::from(code)
}
