//! Asking the daemon.

use std::fmt;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use zbus::Connection;
use zbus::connection::Builder;
use zbus::fdo::{self, DBusProxy};
use zbus::names::{BusName, OwnedUniqueName, WellKnownName};
use zbus::proxy::CacheProperties;

use crate::diagnostic::{Code, escape};
use crate::digest::Digest;
use crate::evaluate::evidence::Question;
use crate::report::{Report, Route, SCHEMA};

use super::{Dictionary, Error, NAME, Options, SYSTEM_BUS, UNIT, UnitState, VerifierProxy};

/// How long connecting may take; zbus waits for ever if the bus refuses the first reply.
const CONNECTING: Duration = Duration::from_secs(10);

/// How long finding the daemon may take, and starting it: more than `TimeoutStartSec=` of its unit.
const FINDING: Duration = Duration::from_secs(45);

/// How much longer than the caller's deadline everything together may take.
const GRACE: Duration = Duration::from_secs(5);

/// How long before that the daemon must be done.
const REPLYING: Duration = Duration::from_secs(1);

/// How long a reload may take, with starting the daemon.
const RELOADING: Duration = Duration::from_secs(60);

/// The user that the daemon runs as; sysusers.d, `vouchd.conf`.
const USER: &str = "vouchd";

/// Asks the daemon. Without `address`, on the system bus.
pub async fn evaluate(
    address: Option<&str>,
    reference: &str,
    question: &Question,
    timeout: Duration,
) -> Result<Report, ClientError> {
    let began = Instant::now();
    let left = || timeout.saturating_add(GRACE).saturating_sub(began.elapsed());
    let verifier = verifier(address, left).await?;
    let options = Options {
        question: question.clone(),
        expected_digest: None,
        timeout: timeout.min(left().saturating_sub(REPLYING)),
        initiator: Some("vouchd verify".to_owned()),
        auth_file: None,
        cookie: None,
        anonymous: None,
        check_tag: false,
        no_cache: false,
        signatures: None,
    };
    let answer = verifier.evaluate_image(reference, options.to_dictionary());
    let report =
        tokio::time::timeout(left(), answer).await.map_err(|_| bus("the daemon does not answer"))??;
    read_report(&report, reference, question)
}

/// Has the daemon read its configuration; returns the digest of the policy. Without `address`, on the system bus.
pub async fn reload(address: Option<&str>) -> Result<String, ClientError> {
    let began = Instant::now();
    let left = || RELOADING.saturating_sub(began.elapsed());
    let verifier = verifier(address, left).await?;
    let digest = tokio::time::timeout(left(), verifier.reload()).await;
    let digest = digest.map_err(|_| bus("the daemon does not answer"))??;
    Digest::parse(&digest).map(|digest| digest.to_string()).ok_or_else(|| bus("it sent no digest"))
}

/// The daemon itself: the connection whose user was checked.
async fn verifier(
    address: Option<&str>,
    left: impl Fn() -> Duration,
) -> Result<VerifierProxy<'static>, ClientError> {
    let connection = connect(&bus_address(address), CONNECTING.min(left())).await?;
    let owner = tokio::time::timeout(FINDING.min(left()), daemon(&connection))
        .await
        .map_err(|_| bus("the daemon was not found in time"))??;
    VerifierProxy::builder(&connection)
        .destination(owner)
        .cache_properties(CacheProperties::No)
        .build()
        .await
        .map_err(|error| bus(&error.to_string()))
}

/// Why the daemon gave no verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientError {
    /// The bus or the daemon failed. Nobody else may be asked instead.
    Bus(String),
    /// There is no bus, or nothing on it that has the name or could be started to have it.
    NotAvailable(String),
    /// The daemon answered that it decides nothing.
    Refused {
        /// The stable name of the cause.
        code: String,
        /// The cause in words.
        message: String,
        /// What can be done about it.
        help: String,
        /// Whether the fault is in what the administrator wrote.
        configuration: bool,
    },
}

impl ClientError {
    /// The stable name of the cause.
    pub fn code(&self) -> &str {
        match self {
            Self::Bus(_) | Self::NotAvailable(_) => Code::BusUnavailable.as_str(),
            Self::Refused { code, .. } => code,
        }
    }

    /// What can be done about it.
    pub fn help(&self) -> &str {
        match self {
            Self::Bus(_) => "see \"systemctl status vouchd\", or decide in this process with --direct",
            Self::NotAvailable(_) => "start vouchd.service, or decide in this process with --direct",
            Self::Refused { help, .. } => help,
        }
    }

    /// Whether the fault is in what the administrator wrote: the policy, the configuration or a key.
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Refused { configuration: true, .. })
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bus(detail) => write!(f, "the daemon cannot be asked: {detail}"),
            Self::NotAvailable(detail) => write!(f, "there is no daemon: {detail}"),
            Self::Refused { message, .. } => f.write_str(message),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<Error> for ClientError {
    /// An error without a code is not the daemon's.
    fn from(error: Error) -> Self {
        match error.code() {
            // The bus itself, by its policy.
            None if matches!(error, Error::AccessDenied(_)) => Self::Refused {
                code: Code::AccessDenied.as_str().to_owned(),
                message: "only root may ask the daemon".to_owned(),
                help: "decide in this process with --direct".to_owned(),
                configuration: false,
            },
            Some(code) => Self::Refused {
                code: code.to_owned(),
                message: escape(&error.message()),
                help: escape(error.help()),
                configuration: error.is_configuration(),
            },
            None if is_gone(&error) => bus("the daemon went away before it answered"),
            None => bus(&error.message()),
        }
    }
}

/// Whether whoever was asked is not on the bus any more.
///
/// D-Bus Specification, "Method Calls"; both buses send NoReply for who left, ServiceUnknown for who had left.
fn is_gone(error: &Error) -> bool {
    let Error::ZBus(zbus::Error::FDO(error)) = error else { return false };
    matches!(**error, fdo::Error::NameHasNoOwner(_) | fdo::Error::NoReply(_) | fdo::Error::ServiceUnknown(_))
}

pub(super) fn bus(detail: &str) -> ClientError {
    ClientError::Bus(escape(detail))
}

/// The address that was asked for, else that of the system bus, which only unprivileged users may move (T-22).
pub(super) fn bus_address(asked: Option<&str>) -> String {
    let moved = || {
        let unprivileged = !nix::unistd::geteuid().is_root();
        unprivileged.then(|| std::env::var("DBUS_SYSTEM_BUS_ADDRESS").ok()).flatten()
    };
    asked.map(str::to_owned).or_else(moved).unwrap_or_else(|| SYSTEM_BUS.to_owned())
}

pub(super) async fn connect(address: &str, patience: Duration) -> Result<Connection, ClientError> {
    match tokio::time::timeout(patience, Builder::address(address).build()).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) if is_absent(&error) => {
            Err(ClientError::NotAvailable(escape(&format!("no message bus at {address}"))))
        }
        Ok(Err(error)) => Err(bus(&error.to_string())),
        Err(_) => Err(bus("connecting to the bus takes too long")),
    }
}

/// Whether there is no socket at all.
fn is_absent(error: &zbus::Error) -> bool {
    let (zbus::Error::Connection(error, _) | zbus::Error::InputOutput(error)) = error else { return false };
    error.kind() == ErrorKind::NotFound
}

/// The connection that owns the name, which is started if need be, and belongs to a user who may own it.
async fn daemon(connection: &Connection) -> Result<OwnedUniqueName, ClientError> {
    let failed = |error: fdo::Error| bus(&error.to_string());
    let name = WellKnownName::from_static_str(NAME).map_err(|error| bus(&error.to_string()))?;
    let proxy = DBusProxy::builder(connection)
        .cache_properties(CacheProperties::No)
        .build()
        .await
        .map_err(|error| bus(&error.to_string()))?;
    let owner = match proxy.get_name_owner(BusName::WellKnown(name.clone())).await {
        Ok(owner) => owner,
        Err(fdo::Error::NameHasNoOwner(_)) => {
            let activatable = proxy.list_activatable_names().await.map_err(failed)?;
            if !activatable.iter().any(|known| known.as_str() == NAME) {
                return Err(ClientError::NotAvailable(format!(
                    "nothing on the bus has the name {NAME}, and nothing can be started"
                )));
            }
            match proxy.start_service_by_name(name.clone(), 0).await {
                Err(error) if is_disabled(&error) || is_masked(connection).await => {
                    return Err(ClientError::NotAvailable("vouchd.service is not enabled".to_owned()));
                }
                started => started.map_err(failed)?,
            };
            proxy.get_name_owner(BusName::WellKnown(name)).await.map_err(failed)?
        }
        Err(error) => return Err(failed(error)),
    };
    let credentials =
        proxy.get_connection_credentials(BusName::Unique(owner.inner().clone())).await.map_err(failed)?;
    check_owner(credentials.unix_user_id()).await?;
    Ok(owner)
}

/// Whether systemd knows no unit to start, or was told never to start it: the administrator wants no daemon.
///
/// dbus-daemon passes systemd's error on; dbus-broker says it in words, with one error or, since version 36, another.
fn is_disabled(error: &fdo::Error) -> bool {
    if let fdo::Error::NameHasNoOwner(text) | fdo::Error::ServiceUnknown(text) = error {
        let text = text.trim_end_matches('.');
        return text.ends_with("unknown unit") || text.ends_with("unit is masked");
    }
    let fdo::Error::ZBus(zbus::Error::MethodError(name, _, _)) = error else { return false };
    matches!(name.as_str(), "org.freedesktop.systemd1.NoSuchUnit" | "org.freedesktop.systemd1.UnitMasked")
}

/// Whether the unit is masked, although something with its alias is still there to be started: what `systemctl mask`
/// leaves of a unit that was enabled.
async fn is_masked(connection: &Connection) -> bool {
    UnitState::of(connection, UNIT).await.is_some_and(|unit| unit.load == "masked")
}

/// Only root and the daemon's user may answer, or who asks (T-22).
pub(super) async fn check_owner(uid: Option<u32>) -> Result<(), ClientError> {
    let Some(uid) = uid else { return Err(bus(&format!("the bus does not say whose {NAME} is"))) };
    if uid == 0 || uid == nix::unistd::geteuid().as_raw() {
        return Ok(());
    }
    // The user database may be on the network.
    let user = tokio::task::spawn_blocking(|| nix::unistd::User::from_name(USER)).await;
    match user {
        Ok(Ok(Some(user))) if user.uid.as_raw() == uid => Ok(()),
        _ => Err(bus(&format!("{NAME} belongs to uid {uid}, neither root nor {USER}"))),
    }
}

/// The report, if it is one and answers this question.
fn read_report(dictionary: &Dictionary, reference: &str, question: &Question) -> Result<Report, ClientError> {
    let report = dictionary.to_report().map_err(|detail| bus(&format!("it sent no report: {detail}")))?;
    if report.schema != SCHEMA || report.route != Route::Bus || !report.decided {
        return Err(bus("it sent a report of another kind"));
    }
    if report.reference != reference {
        return Err(bus("it sent the report of another image"));
    }
    if report.allowed && question.require_signature && !report.authenticated {
        return Err(bus("it allowed the image without a signature, against the question"));
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::evaluate::evidence::Subject;
    use crate::manifest::Platform;

    #[test]
    fn only_an_answer_to_the_question_is_taken() {
        let asked =
            Question { require_signature: true, subject: Subject::Either, platform: Platform::host() };
        let reference = "docker://h/a:1";
        let mut good = Report::undecided(reference, Route::Bus, "", String::new(), "");
        (good.decided, good.allowed, good.authenticated) = (true, true, true);
        let read = |report: &Report| read_report(&Dictionary::of(report).unwrap(), reference, &asked);
        assert_eq!(read(&good), Ok(good.clone()));
        let faults: [fn(&mut Report); 5] = [
            |report| report.schema += 1,
            |report| report.route = Route::Direct,
            |report| report.decided = false,
            |report| report.reference.push('0'),
            |report| report.authenticated = false,
        ];
        for fault in faults {
            let mut report = good.clone();
            fault(&mut report);
            assert!(matches!(read(&report), Err(ClientError::Bus(_))), "{report:?}");
        }
    }

    #[test]
    fn errors_of_the_bus_are_not_those_of_the_daemon() {
        let refused = ClientError::from(Error::PolicyInvalid("[policy-invalid] bad".into()));
        assert_eq!((refused.code(), refused.is_configuration()), ("policy-invalid", true));
        let denied = ClientError::from(Error::AccessDenied("Rejected send message".into()));
        assert_eq!((denied.code(), denied.is_configuration()), ("access-denied", false));
        let lost = ClientError::from(Error::InvalidArgs("Signature mismatch".into()));
        assert!(matches!(lost, ClientError::Bus(_)));
    }
}
