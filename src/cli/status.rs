//! `vouchd status`

use clap::Args;

use crate::config::Environment;
use crate::dbus::DaemonState;
use crate::engine::{self, Engine};
use crate::report::{DaemonReport, Health, StatusReport};
use crate::verify::Timestamp;

use super::{Exit, PolicyArguments, print};

/// Show whether images can be judged on this host, and what needs attention
#[derive(Args, Debug)]
pub(super) struct Status {
    #[command(flatten)]
    policy: PolicyArguments,

    /// Print a JSON object
    #[arg(long)]
    json: bool,

    /// Look for the daemon on this message bus instead of the system bus
    #[arg(long, value_name = "ADDRESS")]
    bus_address: Option<String>,
}

pub(super) async fn run(command: Status) -> Exit {
    let environment = Environment::from_process(false);
    let engine = Engine::new(command.policy.settings(environment.clone()));
    let daemon = report(DaemonState::ask(command.bus_address.as_deref()).await);
    let report = StatusReport::of(&engine, &environment, daemon, engine::now());
    let printed = if command.json { print::json(&report) } else { print::status(&report) };
    printed.max(match report.health {
        Health::Healthy => Exit::Success,
        Health::Attention => Exit::Denied,
        Health::Undecided => Exit::Undecided,
        Health::Unusable => Exit::Configuration,
    })
}

fn report(state: DaemonState) -> DaemonReport {
    let mut report = DaemonReport::default();
    if let Some(unit) = state.unit.filter(|unit| unit.load != "not-found") {
        let is_active = unit.active == "active";
        report.since = unit.since.filter(|_| is_active).map(|since| Timestamp(since).to_string());
        report.enabled = Some(if unit.load == "masked" { unit.load } else { unit.file });
        report.unit = Some(unit.active);
    }
    match state.running {
        Ok(Some(running)) => {
            report.running = true;
            report.version = Some(running.version);
            report.policy_state = Some(running.policy_state);
            report.policy_path = Some(running.policy_path).filter(|path| !path.is_empty());
            report.policy_digest = Some(running.policy_digest).filter(|digest| !digest.is_empty());
            (report.counters, report.refusals) = (running.counters, running.refusals);
        }
        Ok(None) => {}
        Err(error) => report.error = Some(error.to_string()),
    }
    report
}
