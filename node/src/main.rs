//! `mneme-node`: parse, run, exit code.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use mneme_node::config::{self, Cli, Command, Config, ConfigError, FileConfig, RunFlags};
use mneme_node::dev::dev;
use mneme_node::dump::{DumpError, dump};
use mneme_node::node::{self, RunError};
use mneme_node::shutdown::asked_to_stop;
use mneme_node::telemetry;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Wrong flags.
const USAGE: u8 = 64;
/// The file or a port of the data directory cannot be used.
const STORAGE: u8 = 74;
/// Wrong or missing configuration.
const CONFIGURATION: u8 = 78;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors. Where the text cannot be written, the exit code says it.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        builder.worker_threads(worker_threads());
    }
    let runtime = match builder.enable_all().build() {
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

/// Half of the cores: the other half is for SQLite's thread and the kernel's share of the network and the disk. Measured
/// on two cores with three nodes: one worker takes a tenth more writes than two, at a fifth less processor time each.
fn worker_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1))
}

async fn run(command: Command) -> ExitCode {
    match command {
        Command::Run(flags) => run_node(*flags).await,
        Command::Dev { nodes, dir } => {
            let ended = dev(nodes, &dir, asked_to_stop(false)).await;
            ended.map_or_else(|error| fail(&error, 1), |()| ExitCode::SUCCESS)
        }
        Command::CheckConfig { file } => match read_config(Some(&file), RunFlags::for_check()) {
            Ok(_) => {
                println!("{}: no errors", file.display());
                ExitCode::SUCCESS
            }
            Err(errors) => tell(&errors, Some(&file)),
        },
        Command::Dump { data_dir, sqlite, drop_table } => {
            match dump(&data_dir, sqlite.as_deref(), &drop_table).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error @ DumpError::TableName { .. }) => fail(&error, USAGE),
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

fn tell(errors: &[ConfigError], path: Option<&Path>) -> ExitCode {
    for error in errors {
        match path {
            Some(path) => eprintln!("{}: {error}", path.display()),
            None => eprintln!("mneme-node: {error}"),
        }
    }
    ExitCode::from(CONFIGURATION)
}

fn fail(error: &dyn Error, code: u8) -> ExitCode {
    eprintln!("mneme-node: {}", telemetry::chain(error));
    ExitCode::from(code)
}
