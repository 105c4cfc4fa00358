//! Arguments, reports, exit codes.

mod explain;
mod inspect;
mod policy_lint;
mod print;
mod reload;
mod signer;
mod simulate;
mod status;
mod trust;
mod verify;
mod verify_blob;

use std::io::{self, ErrorKind, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::config::{
    self, Directories, Environment, PolicySource, ProxySettings, RegistriesConfSource, ShortNames,
};
use crate::daemon;
use crate::diagnostic::Code;
use crate::engine::{self, LONGEST_TIMEOUT, Settings};
use crate::fetch::credentials::{SERVICE, Source};
use crate::fetch::registry::{self, SystemRoots};
use crate::fetch::{Configuration, ProxySource};

/// What the exit code means; vouchd(1), EXIT STATUS. Of several, the highest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Exit {
    /// Allowed, or asked and answered.
    Success = 0,
    /// Denied by policy; of `status`: something needs attention.
    Denied = 1,
    /// The command line is wrong.
    Usage = 2,
    /// Nothing could be decided.
    Undecided = 3,
    /// The policy or the configuration cannot be used.
    Configuration = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Success => 0,
            Exit::Denied => 1,
            Exit::Usage => 2,
            Exit::Undecided => 3,
            Exit::Configuration => 4,
        })
    }
}

/// Decides whether a container image may be used
#[derive(Debug, Parser)]
#[command(name = "vouchd", version, about, max_term_width = 79, infer_long_args = false)]
#[command(
    after_help = "Exit status: 0 allowed, or asked and answered; 1 denied by policy; 2 usage;\n3 could not be decided or asked; 4 policy or configuration unusable."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Verify images: may they be used, and exactly which digests
    Verify(Box<verify::Verify>),
    /// Explain, offline, what the policy requires of an image and where
    /// signatures are looked for
    Explain(explain::Explain),
    /// Show what is attached to an image and which signatures are good; no verdict
    Inspect(inspect::Inspect),
    /// Say what is wrong with a policy, or likely not what was meant
    PolicyLint(policy_lint::PolicyLint),
    /// Say what a new policy would change for a list of images
    Simulate(Box<simulate::Simulate>),
    /// Verify a file with a Sigstore bundle, offline and without a policy
    VerifyBlob(verify_blob::VerifyBlob),
    /// Show or replace the Sigstore trusted root of this host
    Trust(trust::Trust),
    /// Show whether images can be judged on this host, and what needs
    /// attention
    Status(status::Status),
    /// Serve org.vouchd.Verifier1 on the system bus
    Daemon(Daemon),
    /// Have the daemon read its configuration, and say whether it can be used
    Reload(reload::Reload),
}

/// Where the policy and registries.d are.
#[derive(Args, Clone, Debug)]
struct PolicyArguments {
    /// Use this policy instead of /etc/vouchd/policy.json or
    /// /etc/containers/policy.json
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,

    #[command(flatten)]
    locations: LocationArguments,
}

impl PolicyArguments {
    /// Settings with which no registry is asked.
    fn settings(self, environment: Environment) -> Settings {
        let policy = match self.policy {
            Some(path) => PolicySource::Explicit(path),
            None => PolicySource::Search(environment.clone()),
        };
        self.locations.settings(environment, policy)
    }
}

/// Where registries.d and registries.conf are.
#[derive(Args, Clone, Debug)]
struct LocationArguments {
    /// Use this directory instead of registries.d
    #[arg(long, value_name = "DIR")]
    registries_d: Option<PathBuf>,

    /// Use this file instead of registries.conf and its drop-ins
    #[arg(long, value_name = "FILE")]
    registries_conf: Option<PathBuf>,
}

impl LocationArguments {
    /// Settings with which no registry is asked.
    fn settings(self, environment: Environment, policy: PolicySource) -> Settings {
        let registries_d = match self.registries_d {
            Some(path) => Directories::explicit(path, &environment).required(),
            None => Directories::search(&environment),
        };
        let registries_conf = match self.registries_conf {
            Some(path) => RegistriesConfSource::Explicit(path),
            None => RegistriesConfSource::Search(environment.clone()),
        };
        Settings {
            configuration: Configuration {
                registries_d,
                registries_conf,
                proxies: proxies().unwrap_or(ProxySource::VouchdToml(environment.clone())),
            },
            short_names: ShortNames::Search,
            registry: registry::Settings::default(),
            environment,
            policy: policy.into(),
        }
    }
}

/// The proxies of the environment: of each pair of variables the first that is not empty (rule H-8).
fn proxies() -> Option<ProxySource> {
    let set = |names: [&str; 2]| {
        names.into_iter().filter_map(|name| std::env::var(name).ok()).find(|value| !value.is_empty())
    };
    let (http, https) = (set(["HTTP_PROXY", "http_proxy"]), set(["HTTPS_PROXY", "https_proxy"]));
    let no_proxy = set(["NO_PROXY", "no_proxy"]);
    (http.is_some() || https.is_some()).then_some(ProxySource::Variables(ProxySettings {
        http,
        https,
        no_proxy,
    }))
}

/// Where everything is that a verification reads.
#[derive(Args, Clone, Debug)]
struct ConfigurationArguments {
    #[command(flatten)]
    policy: PolicyArguments,

    #[command(flatten)]
    registries: RegistryArguments,
}

/// How registries are reached.
#[derive(Args, Clone, Debug)]
struct RegistryArguments {
    /// Read registry credentials from this file only
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,

    /// Use the certificates in this directory for every registry
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
}

impl ConfigurationArguments {
    fn any(&self) -> bool {
        let PolicyArguments { policy, locations } = &self.policy;
        policy.is_some()
            || locations.registries_d.is_some()
            || locations.registries_conf.is_some()
            || self.registries.authfile.is_some()
            || self.registries.cert_dir.is_some()
    }

    fn settings(self, environment: Environment) -> Settings {
        self.registries.settings(self.policy.settings(environment))
    }
}

impl RegistryArguments {
    /// The same settings for asking registries.
    fn settings(self, settings: Settings) -> Settings {
        let environment = &settings.environment;
        let auth = Source::of_command_line(self.authfile, environment, |name| std::env::var_os(name));
        let roots = match environment.user {
            Some(_) => SystemRoots::Environment,
            None => SystemRoots::System,
        };
        let registry =
            registry::Settings { cert_dir: self.cert_dir, certs_d: environment.certs_d(), auth, roots };
        Settings { registry, ..settings }
    }
}

#[derive(Args, Debug)]
struct Daemon {
    #[command(flatten)]
    configuration: ConfigurationArguments,

    /// Use this message bus instead of the system bus
    #[arg(long, value_name = "ADDRESS")]
    bus_address: Option<String>,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let command = match parse() {
        Ok(command) => command,
        Err(error) => {
            let exit = if error.use_stderr() || !asks_only_for_help() { Exit::Usage } else { Exit::Success };
            return match error.print() {
                Err(error) if error.kind() != ErrorKind::BrokenPipe => exit.max(Exit::Undecided).into(),
                Ok(()) | Err(_) => exit.into(),
            };
        }
    };
    // All threads together stay below TasksMax= of the unit.
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = match builder.worker_threads(2).max_blocking_threads(48).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            print::failure(&format!("cannot start: {error}"));
            return Exit::Undecided.into();
        }
    };
    let exit = match command {
        Command::Verify(command) => runtime.block_on(verify::run(*command)),
        Command::Explain(command) => explain::run(command),
        Command::Inspect(command) => runtime.block_on(inspect::run(command)),
        Command::PolicyLint(command) => policy_lint::run(command),
        Command::Simulate(command) => runtime.block_on(simulate::run(*command)),
        Command::VerifyBlob(command) => verify_blob::run(command),
        Command::Trust(command) => runtime.block_on(trust::run(command)),
        Command::Status(command) => runtime.block_on(status::run(command)),
        Command::Daemon(command) => runtime.block_on(run_daemon(command)),
        Command::Reload(command) => runtime.block_on(reload::run(command)),
    };
    // Threads that still wait for a disk or a name server must not keep the answer back.
    runtime.shutdown_background();
    exit.into()
}

/// Reads the command line. That of the daemon is read without the other commands, whose definitions would stay in memory
/// as long as it runs: a third of all that it needs.
fn parse() -> Result<Command, clap::Error> {
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.peek().is_some_and(|first| first == "daemon")
        && let Ok(DaemonAlone { daemon }) = DaemonAlone::try_parse_from(arguments)
    {
        return Ok(Command::Daemon(daemon));
    }
    Arguments::try_parse().map(|arguments| arguments.command)
}

/// The command line of the daemon, where nothing is wrong with it and nobody asks for help.
#[derive(Debug, Parser)]
struct DaemonAlone {
    #[command(flatten)]
    daemon: Daemon,
}

/// Whether the arguments are a question about usage and nothing else: "vouchd verify IMAGE" in a script must not
/// succeed because somebody's IMAGE begins with "-h".
fn asks_only_for_help() -> bool {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let is_flag = |argument| ["-h", "--help", "-V", "--version"].iter().any(|flag| argument == flag);
    let root = command();
    let (mut here, mut asked) = (&root, false);
    for argument in &arguments {
        match here.find_subcommand(argument) {
            _ if asked && is_flag(argument) => return false,
            Some(below) => here = below,
            None if !asked && (is_flag(argument) || argument == "help" && here.has_subcommands()) => {
                asked = true;
            }
            None => return false,
        }
    }
    asked
}

/// Standard input, of at most as many bytes as a file in its place may have.
fn read_stdin(limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    io::stdin().lock().take(most).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {limit} bytes")));
    }
    Ok(bytes)
}

async fn run_daemon(command: Daemon) -> Exit {
    daemon::init_logging();
    let mut configuration = command.configuration;
    // The daemon shows the path to callers, who have another working directory.
    configuration.policy.policy =
        configuration.policy.policy.map(|path| std::path::absolute(&path).unwrap_or(path));
    let system = Environment::system();
    let mut settings = configuration.settings(system.clone());
    // The environment is not the administrator's word, and a guess nobody's (T-22).
    settings.configuration.proxies = ProxySource::VouchdToml(system);
    settings.short_names = ShortNames::AliasesOnly;
    settings.registry.auth = settings.registry.auth.with_service_files(SERVICE.into());
    let options = daemon::Options { bus_address: command.bus_address, settings };
    match daemon::run(options).await {
        Ok(()) => Exit::Success,
        Err(error) => {
            let code = match &error {
                daemon::Error::Internal(_) => Code::InternalError,
                daemon::Error::Bus(_) | daemon::Error::BusLost | daemon::Error::NameTaken => {
                    Code::BusUnavailable
                }
            };
            print::failure(&format!("{error} [{code}]"));
            Exit::Undecided
        }
    }
}

/// The exit code of a question that could not be decided.
fn exit_of(error: &engine::Error) -> Exit {
    if matches!(
        error,
        engine::Error::Reference { .. } | engine::Error::Config(config::Error::ShortName { .. })
    ) {
        Exit::Usage
    } else if error.is_configuration() {
        Exit::Configuration
    } else {
        Exit::Undecided
    }
}

/// Reads `90`, `90s`, `500ms` or `5m`.
fn parse_timeout(text: &str) -> Result<Duration, String> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = digits.parse().map_err(|_| "a number of seconds is wanted, such as 90".to_owned())?;
    let duration = match unit {
        "" | "s" => Some(Duration::from_secs(number)),
        "ms" => Some(Duration::from_millis(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        _ => return Err("the units are ms, s and m".to_owned()),
    };
    match duration {
        Some(duration) if !duration.is_zero() && duration <= LONGEST_TIMEOUT => Ok(duration),
        Some(_) | None => Err(format!("it must be more than 0 and at most {} s", LONGEST_TIMEOUT.as_secs())),
    }
}

/// The definition of the command line, for the tests that hold it against the manual.
pub fn command() -> clap::Command {
    Arguments::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn timeouts_have_units_and_limits() {
        for (text, wanted) in [
            ("90", Some(Duration::from_secs(90))),
            ("90s", Some(Duration::from_secs(90))),
            ("250ms", Some(Duration::from_millis(250))),
            ("5m", Some(Duration::from_secs(300))),
            ("0", None),
            ("601", None),
            ("", None),
            ("-1", None),
            ("1h", None),
            ("99999999999999999999", None),
            ("999999999999999999m", None),
        ] {
            assert_eq!(parse_timeout(text).ok(), wanted, "{text}");
        }
    }
}
