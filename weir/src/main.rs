//! The `weir` binary: reads the command line, runs one subcommand, turns its outcome into an exit code.

use clap::Parser as _;
use std::process::ExitCode;
use weir::cli::{self, Cli, Command};
use weir::exit::{self, Failure};
use weir::{demo_backend, explain, logging, run, status, validate};

// As in `weir-proxy`: what is measured there holds here.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    exit::end("weir", dispatch(Cli::parse().command))
}

fn dispatch(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Run(args) => run::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Validate(args) => {
            Ok(ExitCode::from(if validate::run(&args)? { exit::GOOD } else { exit::FAILED }))
        }
        Command::DemoBackend(args) => {
            logging::start(logging::Format::Text);
            demo_backend::run(&args)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Completions { shell } => {
            cli::completions(shell).map_err(|error| Failure::Failed(error.into()))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
