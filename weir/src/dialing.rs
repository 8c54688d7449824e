//! Flags of who dials a controller, a proxy or another replica: where it is, and what the two prove to each other.

use std::path::PathBuf;
use weir_dial::{ClientFiles, Credentials, Dialer, Target, TargetError};

/// The controller of a proxy. All files are read anew whenever the controller is dialled.
#[derive(Debug, Clone, clap::Args)]
pub struct DialArgs {
    /// The controller, for example http://127.0.0.1:9901, or https:// with --controller-ca; can be given several times,
    /// for replicas of one controller
    #[arg(long, value_name = "URL", required = true, value_delimiter = ',', env = "WEIR_CONTROLLER")]
    controller: Vec<String>,
    #[command(flatten)]
    credentials: CredentialArgs,
}

/// What a controller is known by, and what is proven to it.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct CredentialArgs {
    /// PEM certificates of the authorities that may have signed the controller's certificate
    #[arg(long, value_name = "FILE", env = "WEIR_CONTROLLER_CA")]
    controller_ca: Option<PathBuf>,
    /// Name in the controller's certificate, where it is not the host that is dialled
    #[arg(long, value_name = "NAME", env = "WEIR_CONTROLLER_NAME")]
    controller_name: Option<String>,
    /// ServiceAccount token of this pod, projected with the controller's audience; never sent without TLS
    #[arg(long, value_name = "FILE", env = "WEIR_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Own certificate towards a controller with --client-ca, as PEM, leaf first
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
    pub fn dialer(self) -> Result<Dialer, TargetError> {
        let credentials = Credentials::from(self.credentials);
        let targets = self.controller.iter().map(|url| Target::new(url, credentials.clone()));
        let targets = targets.collect::<Result<Vec<_>, _>>()?;
        Dialer::of(targets).ok_or_else(|| TargetError::Url(String::new()))
    }
}

impl CredentialArgs {
    /// Whether nothing says which controller to believe.
    #[must_use]
    pub fn lacks_authorities(&self) -> bool {
        self.controller_ca.is_none()
    }
}

impl From<CredentialArgs> for Credentials {
    fn from(args: CredentialArgs) -> Self {
        // clap asks for both or neither.
        let pair = args.client_cert.zip(args.client_key);
        let client = pair.map(|(certificate, key)| ClientFiles { certificate, key });
        Self { ca: args.controller_ca, name: args.controller_name, token: args.token_file, client }
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
    fn several_replicas_are_several_urls_and_each_is_checked() {
        let two = parse(&["--controller", "http://a:1", "--controller", "http://b:2"]).expect("parsed");
        assert_eq!(two.controller, ["http://a:1", "http://b:2"]);
        assert!(two.dialer().is_ok());
        let wrong = parse(&["--controller", "http://a:1,b"]).expect("parsed");
        assert!(wrong.dialer().is_err_and(|refusal| refusal.to_string().contains("`b`")));
    }

    #[test]
    fn a_token_never_goes_over_plain_http() {
        let flags =
            parse(&["--controller", "http://controller:9901", "--token-file", "token"]).expect("parsed");
        let refusal = flags.dialer().expect_err("refused").to_string();
        assert!(refusal.contains("--token-file") && refusal.contains("https"), "{refusal}");
        let flags =
            ["--controller", "https://controller:9901", "--controller-ca", "ca.crt", "--token-file", "t"];
        assert!(parse(&flags).expect("parsed").dialer().is_ok());
    }
}
