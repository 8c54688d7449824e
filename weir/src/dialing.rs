//! Flags of `weir-proxy`: where its controller is, and what the two prove to each other.

use std::path::PathBuf;
use weir_proxy::config::dial::{ClientFiles, Credentials, Target, TargetError};

/// The controller of a proxy. All files are read anew whenever the controller is dialled.
#[derive(Debug, Clone, clap::Args)]
pub struct DialArgs {
    /// The controller, for example http://127.0.0.1:9901, or https:// with --controller-ca
    #[arg(long, value_name = "URL", env = "WEIR_CONTROLLER")]
    controller: String,
    /// PEM certificates of the authorities that may have signed the controller's certificate
    #[arg(long, value_name = "FILE", env = "WEIR_CONTROLLER_CA")]
    controller_ca: Option<PathBuf>,
    /// Name in the controller's certificate, where it is not the host of --controller
    #[arg(long, value_name = "NAME", env = "WEIR_CONTROLLER_NAME")]
    controller_name: Option<String>,
    /// ServiceAccount token of this pod, projected with the controller's audience; over https only
    #[arg(long, value_name = "FILE", env = "WEIR_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// This proxy's own certificate as PEM, leaf first, for a controller with --client-ca
    #[arg(long, value_name = "FILE", requires = "client_key", env = "WEIR_CLIENT_CERT")]
    client_cert: Option<PathBuf>,
    /// Private key of --client-cert as PEM
    #[arg(long, value_name = "FILE", requires = "client_cert", env = "WEIR_CLIENT_KEY")]
    client_key: Option<PathBuf>,
}

impl DialArgs {
    /// What to dial.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn target(self) -> Result<Target, TargetError> {
        // clap asks for both or neither.
        let pair = self.client_cert.zip(self.client_key);
        let client = pair.map(|(certificate, key)| ClientFiles { certificate, key });
        let credentials = Credentials {
            ca: self.controller_ca,
            name: self.controller_name,
            token: self.token_file,
            client,
        };
        Target::new(&self.controller, credentials)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args as _, Command, FromArgMatches as _};

    fn parse(flags: &[&str]) -> Result<DialArgs, clap::Error> {
        let command = DialArgs::augment_args(Command::new("weir-proxy"));
        let matches = command.try_get_matches_from([&["weir-proxy"], flags].concat())?;
        DialArgs::from_arg_matches(&matches)
    }

    #[test]
    fn a_certificate_comes_with_its_key() {
        assert!(parse(&["--controller", "https://a", "--client-cert", "a.crt"]).is_err());
        assert!(parse(&["--controller", "https://a", "--client-key", "a.key"]).is_err());
        assert!(parse(&[]).is_err());
    }

    #[test]
    fn a_token_never_goes_over_plain_http() {
        let flags =
            parse(&["--controller", "http://controller:9901", "--token-file", "token"]).expect("parsed");
        let refusal = flags.target().expect_err("refused").to_string();
        assert!(refusal.contains("--token-file") && refusal.contains("https"), "{refusal}");
        let flags =
            ["--controller", "https://controller:9901", "--controller-ca", "ca.crt", "--token-file", "t"];
        assert!(parse(&flags).expect("parsed").target().is_ok());
    }
}
