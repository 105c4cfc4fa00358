//! `vouchd verify`

use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::config::Environment;
use crate::dbus;
use crate::diagnostic::Code;
use crate::engine::{self, Engine};
use crate::evaluate::evidence::{Question, Subject};
use crate::manifest::Platform;
use crate::policy::Policy;
use crate::reference::{self, ImageName, Transport};
use crate::report::{Report, Route};

use super::signer::SignerArguments;
use super::{ConfigurationArguments, Exit, exit_of, parse_timeout, print};

/// Verify images: may they be used, and exactly which digests
#[derive(Args, Debug)]
pub(super) struct Verify {
    /// The images, such as docker://quay.io/acme/app:1.2, dir:/srv/image or
    /// quay.io/acme/app:1.2
    #[arg(value_name = "REF", required = true)]
    references: Vec<String>,

    #[command(flatten)]
    configuration: ConfigurationArguments,

    /// Give up after this time, such as 90, 500ms or 5m
    #[arg(long, value_name = "TIME", default_value = "90s", value_parser = parse_timeout)]
    timeout: Duration,

    /// Refuse unless a signature was required and verified
    #[arg(long)]
    require_signature: bool,

    /// The platform of the image in an index; default: this host's
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_parser = parse_platform)]
    platform: Option<Platform>,

    /// Which manifest of a multi-platform image must satisfy the policy
    #[arg(long, value_enum, default_value = "either")]
    subject: SubjectArgument,

    /// Print nothing but the reasons of a refusal
    #[arg(long, short)]
    quiet: bool,

    /// Print one JSON object per image
    #[arg(long, conflicts_with = "quiet")]
    json: bool,

    /// Print only the reference that names exactly what was allowed
    #[arg(long, conflicts_with_all = ["quiet", "json"])]
    print_pinned: bool,

    /// Decide in this process
    #[arg(long, conflicts_with = "bus")]
    direct: bool,

    /// Ask the daemon
    #[arg(long, conflicts_with_all = ["policy", "registries_d", "authfile", "cert_dir", "user_config"])]
    bus: bool,

    /// Ask the daemon on this message bus instead of the system bus
    #[arg(long, value_name = "ADDRESS", requires = "bus", conflicts_with_all = ["direct", "policy", "signer"])]
    bus_address: Option<String>,

    /// As root, let the files and variables of the user count too
    #[arg(long)]
    user_config: bool,

    #[command(flatten)]
    signer: SignerArguments,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum SubjectArgument {
    /// Index and instance
    Both,
    /// Index or instance
    Either,
    /// The instance for the platform, as podman asks
    Instance,
    /// The manifest that the reference names
    TopLevel,
}

impl From<SubjectArgument> for Subject {
    fn from(argument: SubjectArgument) -> Self {
        match argument {
            SubjectArgument::Both => Self::Both,
            SubjectArgument::Either => Self::Either,
            SubjectArgument::Instance => Self::Instance,
            SubjectArgument::TopLevel => Self::TopLevel,
        }
    }
}

pub(super) fn parse_platform(text: &str) -> Result<Platform, String> {
    Platform::parse(text).ok_or_else(|| "the form is OS/ARCH[/VARIANT], such as linux/arm64/v8".to_owned())
}

/// An image as the command line names it.
pub(super) struct Argument {
    /// The name with a transport.
    pub(super) name: String,
    pub(super) require_signature: bool,
    pub(super) warning: Option<&'static str>,
}

impl Argument {
    /// Takes the prefixes of ostree off and puts a transport on; vouchd(1), IMAGE NAMES.
    pub(super) fn parse(text: &str) -> Self {
        // To ostree a registry need not be named, as to "docker://".
        let registry = |rest: &str| match rest.strip_prefix("registry:") {
            Some(name) => format!("docker://{name}"),
            None => rest.to_owned(),
        };
        let unverified = "ostree would not verify this image; the verdict is that of the policy";
        let (rest, require_signature, warning) = if let Some(rest) = text.strip_prefix("ostree-image-signed:")
        {
            (registry(rest), true, None)
        } else if let Some(rest) = text.strip_prefix("ostree-unverified-image:") {
            (registry(rest), false, Some(unverified))
        } else if let Some(rest) = text.strip_prefix("ostree-unverified-registry:") {
            (format!("docker://{rest}"), false, Some(unverified))
        } else {
            (text.to_owned(), false, None)
        };
        // A bare name counts only if it says which registry: short names are somebody else's guess (T-22).
        let bare = matches!(ImageName::parse(&rest), Err(reference::Error::Transport))
            && rest.split_once('/').is_some_and(|(host, _)| {
                host == "localhost" || (host.contains(['.', ':']) && reference::is_domain(host))
            });
        let name = if bare { format!("docker://{rest}") } else { rest };
        Self { name, require_signature, warning }
    }

    fn is_registry(&self) -> bool {
        ImageName::parse(&self.name).is_ok_and(|name| name.transport() == Transport::Docker)
    }
}

/// The name with a transport; see [`Argument::parse`].
pub(super) fn complete(text: &str) -> String {
    Argument::parse(text).name
}

pub(super) async fn run(command: Verify) -> Exit {
    let arguments: Vec<Argument> = command.references.iter().map(|r| Argument::parse(r)).collect();
    let mut exit = Exit::Success;
    let policy = match command.signer.policy() {
        Ok(policy) => policy,
        Err(message) => {
            print::failure(&format!("{message} [{}]", Code::Usage));
            return Exit::Usage;
        }
    };
    let deciders = Deciders::new(&command, &arguments, policy);
    for (text, argument) in command.references.iter().zip(&arguments) {
        let (mut report, this) = deciders.decide(text, argument, &command).await;
        report.warnings.extend(argument.warning.map(str::to_owned));
        exit = exit.max(show(&command, &report, this));
    }
    exit
}

/// Who may decide. The daemon is asked only about what it would decide from the same files.
struct Deciders {
    bus: bool,
    direct: Option<Arc<Engine>>,
}

impl Deciders {
    /// `policy` stands in place of every file.
    fn new(command: &Verify, arguments: &[Argument], policy: Option<Policy>) -> Self {
        let bus = command.asks_daemon(nix::unistd::geteuid().is_root(), arguments, policy.is_some());
        let direct = (!command.bus).then(|| Arc::new(Engine::new(command.settings(policy))));
        Self { bus, direct }
    }

    async fn decide(&self, text: &str, argument: &Argument, command: &Verify) -> (Report, Exit) {
        let question = Question {
            require_signature: command.require_signature || argument.require_signature,
            subject: command.subject.into(),
            platform: command.platform.clone().unwrap_or_else(Platform::host),
        };
        if self.bus {
            let address = command.bus_address.as_deref();
            match dbus::evaluate(address, &argument.name, &question, command.timeout).await {
                Ok(mut report) => {
                    text.clone_into(&mut report.reference);
                    report.route = Route::Bus;
                    let exit = if report.allowed { Exit::Success } else { Exit::Denied };
                    return (report, exit);
                }
                Err(dbus::ClientError::NotAvailable(_)) if self.direct.is_some() => {}
                Err(error) => {
                    let code = error.code().to_owned();
                    let exit = if code == Code::InvalidReference.as_str() {
                        Exit::Usage
                    } else if error.is_configuration() {
                        Exit::Configuration
                    } else {
                        Exit::Undecided
                    };
                    let report = Report::undecided(text, Route::Bus, &code, error.to_string(), error.help());
                    return (report, exit);
                }
            }
        }
        let Some(engine) = &self.direct else {
            let message = "nobody is left to decide".to_owned();
            return (Report::undecided(text, Route::Direct, "internal-error", message, ""), Exit::Undecided);
        };
        match engine.verify(&argument.name, &question, None, command.timeout, engine::now()).await {
            Ok(answer) => {
                let report = Report::of_answer(text, Route::Direct, &answer);
                let exit = if report.allowed { Exit::Success } else { Exit::Denied };
                (report, exit)
            }
            Err(undecided) => {
                (Report::of_undecided(text, Route::Direct, &undecided), exit_of(&undecided.error))
            }
        }
    }
}

impl Verify {
    fn asks_daemon(&self, is_root: bool, arguments: &[Argument], has_policy: bool) -> bool {
        let own_files = self.configuration.any() || self.user_config || has_policy;
        let by_itself = is_root && !own_files && arguments.iter().all(Argument::is_registry);
        self.bus || (by_itself && !self.direct)
    }

    fn settings(&self, policy: Option<Policy>) -> engine::Settings {
        let settings = self.configuration.clone().settings(Environment::from_process(self.user_config));
        match policy {
            Some(policy) => engine::Settings { policy: policy.into(), ..settings },
            None => settings,
        }
    }
}

/// Prints the report in the form that was asked for.
fn show(command: &Verify, report: &Report, exit: Exit) -> Exit {
    let printed = if command.json {
        print::json(report)
    } else if !report.allowed && (command.print_pinned || command.quiet) {
        print::refusal(report);
        Exit::Success
    } else if command.print_pinned {
        show_pinned(report)
    } else if command.quiet {
        Exit::Success
    } else {
        print::report(report)
    };
    exit.max(printed)
}

fn show_pinned(report: &Report) -> Exit {
    print::warnings(report);
    match &report.pinned_reference {
        Some(pinned) => {
            let warning = match report.pinned_reference_accepted {
                Some(true) => None,
                Some(false) => Some("the policy refuses it, because it wants the tag to be signed"),
                None => Some("registries.conf leads digests to another place, which was not asked"),
            };
            if let Some(warning) = warning {
                print::failure(&format!(
                    "warning: \"{pinned}\": {warning}: pull \"{}\" and compare digests",
                    report.reference
                ));
            }
            print::line(pinned)
        }
        None => {
            print::failure(&format!(
                "\"{}\" is allowed, but images of its transport cannot be named by digest [{}]",
                report.reference,
                Code::UnsupportedTransport
            ));
            Exit::Undecided
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        verify: Verify,
    }

    #[test]
    fn the_daemon_is_asked_only_about_its_own_files() {
        let asks = |is_root, flags: &str| {
            let line = format!("verify {flags}");
            let command = Line::parse_from(line.split_whitespace()).verify;
            let arguments: Vec<Argument> = command.references.iter().map(|r| Argument::parse(r)).collect();
            let has_policy = command.signer.policy().unwrap().is_some();
            command.asks_daemon(is_root, &arguments, has_policy)
        };
        for (flags, by_root, by_others) in [
            ("docker://a/b", true, false),
            ("--bus docker://a/b", true, true),
            ("--direct docker://a/b", false, false),
            ("dir:/x", false, false),
            ("docker://a/b dir:/x", false, false),
            ("--policy p docker://a/b", false, false),
            ("--user-config docker://a/b", false, false),
            ("--key k docker://a/b", false, false),
            ("--certificate-identity n --certificate-oidc-issuer i docker://a/b", false, false),
        ] {
            assert_eq!((asks(true, flags), asks(false, flags)), (by_root, by_others), "{flags}");
        }
    }

    #[test]
    fn names_are_completed_but_never_guessed() {
        for (text, name, required) in [
            ("docker://a/b", "docker://a/b", false),
            ("quay.io/a/b:1", "docker://quay.io/a/b:1", false),
            ("localhost/a", "docker://localhost/a", false),
            ("h:5000/a@sha256:00", "docker://h:5000/a@sha256:00", false),
            ("busybox", "busybox", false),
            ("a/b:1", "a/b:1", false),
            ("dir:/x", "dir:/x", false),
            ("ostree-image-signed:docker://q.io/a", "docker://q.io/a", true),
            ("ostree-image-signed:registry:q.io/a", "docker://q.io/a", true),
            ("ostree-image-signed:registry:fedora", "docker://fedora", true),
            ("ostree-unverified-image:registry:2", "docker://2", false),
            ("registry:2", "registry:2", false),
            ("registry:5000/a/b", "docker://registry:5000/a/b", false),
            ("ostree-unverified-registry:q.io/a:1", "docker://q.io/a:1", false),
            ("ostree-unverified-image:docker://q.io/a", "docker://q.io/a", false),
        ] {
            let argument = Argument::parse(text);
            assert_eq!((argument.name.as_str(), argument.require_signature), (name, required), "{text}");
        }
    }
}
