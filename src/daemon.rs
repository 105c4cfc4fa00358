//! The life of the daemon under systemd: start, readiness, watchdog, reload, end.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber, info, warn};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use zbus::Connection;
use zbus::connection::Builder;
use zbus::fdo::{RequestNameFlags, RequestNameReply};

use crate::config::{Environment, LastSeen};
use crate::dbus::{self, PolicyStatus, Served, Verifier};
use crate::engine::{self, Engine, Settings};
use crate::metrics;

/// How long connecting and getting the name may take.
const CONNECTING: Duration = Duration::from_secs(20);

/// How long running verifications may go on after the daemon was told to end; below `TimeoutStopSec=`.
const FINISHING: Duration = Duration::from_secs(3);

/// How long the last replies may take.
const CLOSING: Duration = Duration::from_secs(1);

/// Where journald listens; sd_journal_print(3), systemd's native journal protocol.
const JOURNAL: &str = "/run/systemd/journal/socket";

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The message bus; the system bus if `None`.
    pub bus_address: Option<String>,
    /// Where the configuration is.
    pub settings: Settings,
}

/// Why the daemon ends.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The bus refuses the connection or the name.
    Bus(String),
    /// The bus ended the connection.
    BusLost,
    /// A fault of the daemon itself.
    Internal(String),
    /// Somebody else has the name.
    NameTaken,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bus(detail) => write!(f, "cannot serve on the message bus: {detail}"),
            Self::BusLost => f.write_str("the message bus ended the connection"),
            Self::Internal(detail) => f.write_str(detail),
            Self::NameTaken => write!(f, "{} already has an owner: another daemon is running", dbus::NAME),
        }
    }
}

impl std::error::Error for Error {}

/// Serves until a signal ends it. An unusable policy refuses every image, but does not end the daemon.
pub async fn run(options: Options) -> Result<(), Error> {
    // In a task, because the watchdog must stop with the threads that serve requests.
    match tokio::spawn(serve(options)).await {
        Ok(result) => result,
        Err(_) => Err(Error::Internal("the daemon broke off".to_owned())),
    }
}

async fn serve(options: Options) -> Result<(), Error> {
    let mut signals = Signals::new()?;
    let environment = options.settings.environment.clone();
    let mut seeing = Seeing::new(&environment);
    let verifier = Verifier::new(Arc::new(Engine::new(options.settings).only_ours()));
    let address = options.bus_address.as_deref().unwrap_or(dbus::SYSTEM_BUS);
    let (connection, mut departures) = connect(address, &verifier).await?;
    let mut watchdog = watchdog();
    notify(&[NotifyState::Ready, NotifyState::Status(&status(verifier.policy_status().await.as_ref()))]);
    info!("serving {}", dbus::NAME);
    let mut reloading = Reloading::new(verifier.clone());
    // A set, because dropping it ends its task.
    let mut counting = JoinSet::new();
    counting.spawn(Arc::clone(verifier.answers()).keep_file(environment, metrics::PAUSE));
    loop {
        tokio::select! {
            () = connection.closed() => return Err(Error::BusLost),
            Some(_) = departures.join_next() => return Err(Error::BusLost),
            _ = signals.interrupt.recv() => break,
            _ = signals.terminate.recv() => break,
            _ = signals.hangup.recv() => reloading.begin(),
            Some(_) = reloading.task.join_next() => reloading.ended(),
            () = tick(&mut watchdog) => {
                notify(&[NotifyState::Watchdog]);
                seeing.begin();
            }
            Some(_) = seeing.task.join_next() => {}
        }
    }
    // What it would say is not true any more.
    reloading.task.shutdown().await;
    info!("ending");
    notify(&[NotifyState::Stopping]);
    verifier.finish(FINISHING).await;
    // They keep the connection.
    departures.shutdown().await;
    // Ends when the last reply has been sent.
    let _ = tokio::time::timeout(CLOSING, connection.graceful_shutdown()).await;
    Ok(())
}

/// The signals that mean something.
struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self, Error> {
        let on =
            |kind| signal(kind).map_err(|error| Error::Internal(format!("cannot take signals: {error}")));
        Ok(Self {
            hangup: on(SignalKind::hangup())?,
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
        })
    }
}

/// The connection, and the task that follows who leaves the bus.
async fn connect(address: &str, verifier: &Verifier) -> Result<(Connection, JoinSet<()>), Error> {
    match tokio::time::timeout(CONNECTING, appear(address, verifier)).await {
        Ok(Ok(appeared)) => Ok(appeared),
        Ok(Err(zbus::Error::NameTaken)) => Err(Error::NameTaken),
        Ok(Err(error)) => Err(Error::Bus(error.to_string())),
        Err(_) => Err(Error::Bus("it does not answer".to_owned())),
    }
}

/// The object is there before the name is; nobody is replaced, and nobody may replace us.
async fn appear(address: &str, verifier: &Verifier) -> zbus::Result<(Connection, JoinSet<()>)> {
    let connection =
        Builder::address(address).serve_at(dbus::PATH, Served::new(verifier.clone())).build().await?;
    let mut departures = JoinSet::new();
    departures.spawn(verifier.departures(&connection).await?.follow());
    match connection.request_name_with_flags(dbus::NAME, RequestNameFlags::DO_NOT_QUEUE).await? {
        RequestNameReply::AlreadyOwner | RequestNameReply::PrimaryOwner => Ok((connection, departures)),
        RequestNameReply::Exists | RequestNameReply::InQueue => Err(zbus::Error::NameTaken),
    }
}

/// Ticks twice as often as systemd wants a sign of life; sd_watchdog_enabled(3).
fn watchdog() -> Option<Interval> {
    let half = sd_notify::watchdog_enabled()?.checked_div(2).filter(|half| !half.is_zero())?;
    let mut interval = tokio::time::interval(half);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Some(interval)
}

async fn tick(watchdog: &mut Option<Interval>) {
    match watchdog {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

/// Keeping the time that was last seen, beside everything else, at most once at a time. It wakes nobody up: the
/// watchdog does.
struct Seeing {
    began: Instant,
    last: Arc<Mutex<LastSeen>>,
    task: JoinSet<()>,
}

impl Seeing {
    fn new(environment: &Environment) -> Self {
        let last = Arc::new(Mutex::new(LastSeen::new(environment)));
        Self { began: Instant::now(), last, task: JoinSet::new() }
    }

    fn begin(&mut self) {
        if !self.task.is_empty() {
            return;
        }
        let (last, elapsed) = (Arc::clone(&self.last), self.began.elapsed());
        self.task.spawn_blocking(move || {
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = last.see(elapsed, engine::now()) {
                warn!("the time is not kept: {error}");
            }
        });
    }
}

/// Looking at the files anew, beside everything else, at most once at a time.
struct Reloading {
    verifier: Verifier,
    task: JoinSet<()>,
    /// Whether the files may have changed since the task began.
    again: bool,
}

impl Reloading {
    fn new(verifier: Verifier) -> Self {
        Self { verifier, task: JoinSet::new(), again: false }
    }

    fn begin(&mut self) {
        if self.task.is_empty() {
            self.task.spawn(reload(self.verifier.clone()));
        } else {
            self.again = true;
        }
    }

    fn ended(&mut self) {
        if std::mem::take(&mut self.again) {
            self.begin();
        }
    }
}

/// Tells systemd and the journal what the files are like now; requests read them anew in any case.
async fn reload(verifier: Verifier) {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => warn!("cannot read the clock: {error}"),
    }
    verifier.forget();
    let found = verifier.policy_status().await;
    let status = status(found.as_ref());
    if found.is_some_and(|found| found.state == "loaded") {
        if let Err(error) = verifier.check().await {
            warn!("looked at the configuration again: {}", error.message());
        }
        info!("looked at the configuration again: {status}");
    } else {
        warn!("looked at the configuration again: {status}");
    }
    notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// One line for `systemctl status`, which everybody may read: never an image name (T-34).
fn status(policy: Option<&PolicyStatus>) -> String {
    let text = match policy.map(|policy| (policy.state, policy.path.display())) {
        Some(("loaded", path)) => format!("Policy {path} is loaded"),
        Some(("missing", _)) => "No policy: every image is refused".to_owned(),
        Some((_, path)) => format!("Policy {path} cannot be used: every image is refused"),
        None => "The policy cannot be read in time: every image is refused until it can".to_owned(),
    };
    // A line break would begin another assignment of sd_notify(3).
    text.chars().filter(|c| !c.is_control()).collect()
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!("cannot notify systemd: {error}");
    }
}

/// Sends records to the journal if there is one, else to standard error.
pub fn init_logging() {
    let levels = Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target(env!("CARGO_CRATE_NAME"), LevelFilter::INFO);
    let registry = tracing_subscriber::registry().with(levels);
    let journal = Path::new(JOURNAL).exists().then(tracing_journald::layer).and_then(Result::ok);
    let stderr = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(std::io::stderr);
    let set = match journal {
        Some(journal) => {
            // As on standard error. Our fields have their whole names: some are not ours to name.
            let priorities = PriorityMappings { info: Priority::Informational, ..PriorityMappings::new() };
            let journal = journal
                .with_field_prefix(None)
                .with_priority_mappings(priorities)
                .with_syslog_identifier("vouchd".to_owned());
            registry.with(journal).try_init()
        }
        None if is_under_systemd() => registry.with(stderr.event_format(Prioritized)).try_init(),
        None => registry.with(stderr.with_target(false)).try_init(),
    };
    // Somebody else has taken the records already; they are not lost.
    drop(set);
}

/// Whether systemd started this process; systemd.exec(5), `$INVOCATION_ID` and `$JOURNAL_STREAM`.
fn is_under_systemd() -> bool {
    ["INVOCATION_ID", "JOURNAL_STREAM"].iter().any(|name| std::env::var_os(name).is_some())
}

/// Lines that begin with their priority; sd-daemon(3).
struct Prioritized;

impl<S, N> FormatEvent<S, N> for Prioritized
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        write!(writer, "<{priority}>")?;
        context.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}
