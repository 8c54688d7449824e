//! The `weir` binary: reads the command line, runs one subcommand, turns its outcome into an exit code.

use clap::Parser as _;
use std::io::Write as _;
use std::process::ExitCode;
use weir::cli::{self, Cli, Command};
use weir::exit::Failure;
use weir::{demo_backend, logging};

fn main() -> ExitCode {
    let ended = match Cli::parse().command {
        Command::DemoBackend(args) => {
            logging::start(logging::Format::Text);
            demo_backend::run(&args)
        }
        Command::Completions { shell } => {
            cli::completions(shell).map_err(|error| Failure::Failed(error.into()))
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // With standard error closed there is nobody left to tell.
            let _ = writeln!(std::io::stderr(), "weir: {}", failure.sentence());
            failure.code()
        }
    }
}
