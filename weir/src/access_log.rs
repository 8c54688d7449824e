//! Flags of the access log, which `weir run` and `weir-proxy` share.

use clap::ValueEnum;
use clap::builder::FalseyValueParser;
use std::path::PathBuf;
use weir_proxy::access_log::{AccessLogOptions, Format, Share, Which};

/// How lines of the access log look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Lines {
    /// No access log
    Off,
    /// One JSON object on each line
    Json,
    /// NCSA common log format
    Common,
    /// Combined log format: common, with referer (always -) and user agent
    Combined,
}

/// Whether and how requests are logged.
#[derive(Debug, Clone, clap::Args)]
pub struct AccessLogArgs {
    /// Log a line for each request at its end, without queries, cookies and other headers
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "off", env = "WEIR_ACCESS_LOG")]
    access_log: Lines,
    /// File to append the access log to; opened anew at SIGHUP, and when the path names another file or none
    /// [default: standard output]
    #[arg(long, value_name = "PATH", env = "WEIR_ACCESS_LOG_FILE")]
    access_log_file: Option<PathBuf>,
    /// Part of the requests that the access log has, drawn at random: 0.01 is one in a hundred
    #[arg(long, value_name = "PART", default_value = "1", value_parser = share, env = "WEIR_ACCESS_LOG_SHARE")]
    access_log_share: Share,
    /// Log only requests that failed: with the reason of a failure, or a status from 500
    #[arg(long, value_parser = FalseyValueParser::new(), env = "WEIR_ACCESS_LOG_FAILURES")]
    access_log_failures: bool,
}

impl AccessLogArgs {
    /// `None` where nothing is to be logged.
    #[must_use]
    pub fn options(&self) -> Option<AccessLogOptions> {
        let format = match self.access_log {
            Lines::Off => return None,
            Lines::Json => Format::Json,
            Lines::Common => Format::Common,
            Lines::Combined => Format::Combined,
        };
        let file = self.access_log_file.clone();
        let which = if self.access_log_failures { Which::Failures } else { Which::All };
        Some(AccessLogOptions { format, file, share: self.access_log_share, which })
    }
}

fn share(text: &str) -> Result<Share, String> {
    let part = text.parse().ok().and_then(Share::of);
    part.ok_or_else(|| format!("`{text}` is not a part; write a number from 0.000001 to 1, like 0.01"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        log: AccessLogArgs,
    }

    fn read(flags: &[&str]) -> Result<Option<AccessLogOptions>, String> {
        let read = Command::try_parse_from(["weir"].iter().chain(flags));
        read.map(|command| command.log.options()).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_is_logged_unless_it_is_asked_for() {
        assert!(read(&[]).expect("flags").is_none());
        assert!(read(&["--access-log-share", "0.5", "--access-log-file", "a"]).expect("flags").is_none());
        let all = read(&["--access-log", "json"]).expect("flags").expect("on");
        assert_eq!(
            (all.format, all.file, all.share, all.which),
            (Format::Json, None, Share::ALL, Which::All)
        );
        let flags = ["--access-log=common", "--access-log-share=0.25", "--access-log-failures"];
        let few = read(&flags).expect("flags").expect("on");
        assert_eq!((few.format, few.file, few.which), (Format::Common, None, Which::Failures));
        assert_eq!(Some(few.share), Share::of(0.25));
    }

    #[test]
    fn wrong_values_are_named() {
        for (flags, named) in [
            (["--access-log", "xml"], "invalid value 'xml'"),
            (["--access-log-share", "0"], "`0` is not a part"),
            (["--access-log-share", "1.1"], "`1.1` is not a part"),
            (["--access-log-share", "1%"], "`1%` is not a part"),
            (["--access-log-share", "NaN"], "`NaN` is not a part"),
        ] {
            let said = read(&flags).expect_err(named);
            assert!(said.contains(named), "{said}");
        }
    }
}
