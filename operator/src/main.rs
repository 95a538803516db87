//! `mneme-operator`: parse, run, exit code.

use std::process::ExitCode;

use clap::Parser;
use mneme_operator::check::check;
use mneme_operator::config::{CheckFlags, Cli, Command, Config, Format, RunFlags};
use mneme_operator::{crd, run, telemetry};

/// Wrong flags.
const USAGE: u8 = 64;
/// Wrong configuration.
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
    match cli.command {
        Command::Check(flags) => check_nodes(&flags),
        Command::Crd { format: Format::Yaml } => match crd::yaml() {
            Ok(text) => {
                print!("{text}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("mneme-operator: failed to write the definition: {error}");
                ExitCode::FAILURE
            }
        },
        Command::Crd { format: Format::Markdown } => {
            print!("{}", crd::reference());
            ExitCode::SUCCESS
        }
        Command::Run(flags) => run_operator(*flags),
    }
}

fn check_nodes(flags: &CheckFlags) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("mneme-operator: failed to start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(check(flags)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mneme-operator: {}", telemetry::chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn run_operator(flags: RunFlags) -> ExitCode {
    let (log_format, log_level) = (flags.log_format, flags.log_level.clone());
    let service_host = std::env::var("KUBERNETES_SERVICE_HOST").ok();
    let config = match Config::new(flags, service_host.as_deref()) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("mneme-operator: {error}");
            return ExitCode::from(CONFIGURATION);
        }
    };
    if let Err(reason) = telemetry::start(log_format, &log_level) {
        eprintln!("mneme-operator: {reason}");
        return ExitCode::from(CONFIGURATION);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("mneme-operator: failed to start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run::run(config, run::asked_to_stop())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = telemetry::chain(&error);
            tracing::error!(error = %text, "the operator ended");
            ExitCode::FAILURE
        }
    }
}
