//! `vouchd trust`

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use tokio::time::Instant;

use crate::config::Environment;
use crate::engine;
use crate::fetch::ProxySource;
use crate::fetch::host_root::HostRoots;
use crate::fetch::registry::{Client, Settings, SystemRoots};
use crate::fetch::trust_update::{self, Outcome, UpdateError};
use crate::report::TrustReport;

use super::{Exit, parse_timeout, print, proxies};

/// Show or replace the Sigstore trusted root of this host
#[derive(Args, Debug)]
pub(super) struct Trust {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show which trusted root this host has, how old it is and what it lists
    Show(Show),
    /// Take a trusted root, or what another host has fetched, from a file
    Import(Import),
    /// Fetch a newer trusted root with TUF
    Update(Update),
}

/// Show which trusted root this host has, how old it is and what it lists
#[derive(Args, Debug)]
struct Show {
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// Take a trusted root, or what another host has fetched, from a file
#[derive(Args, Debug)]
struct Import {
    /// A trusted_root.json, or the sigstore.json of another host
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Fetch a newer trusted root with TUF
#[derive(Args, Debug)]
struct Update {
    /// Give up after this time, such as 90, 500ms or 5m
    #[arg(long, value_name = "TIME", default_value = "90s", value_parser = parse_timeout)]
    timeout: Duration,
}

pub(super) async fn run(command: Trust) -> Exit {
    let environment = Environment::from_process(false);
    match command.action {
        Action::Show(show) => match HostRoots::new(environment).load() {
            Ok(root) => {
                let report = TrustReport::of(&root, engine::now());
                if show.json { print::json(&report) } else { print::trusted_root(&report) }
            }
            Err(error) => failed(&error.into()),
        },
        Action::Import(import) => done(&environment, trust_update::import(&environment, &import.file)),
        Action::Update(update) => {
            let roots =
                if environment.user.is_some() { SystemRoots::Environment } else { SystemRoots::System };
            let settings = Settings { certs_d: environment.certs_d(), roots, ..Settings::default() };
            let proxies = proxies().unwrap_or(ProxySource::VouchdToml(environment.clone()));
            let deadline = Instant::now() + update.timeout;
            let updating =
                trust_update::update(&environment, Client::new(settings), proxies, deadline, engine::now());
            done(&environment, updating.await)
        }
    }
}

/// Says what was done, and what this host has now.
fn done(environment: &Environment, outcome: Result<Outcome, UpdateError>) -> Exit {
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => return failed(&error),
    };
    match HostRoots::new(environment.clone()).load() {
        Ok(root) => {
            let report = TrustReport::of(&root, engine::now());
            let counts = root.source == outcome.source();
            print::trust_outcome(&outcome, &report, counts)
        }
        Err(error) => print::trust_written(&outcome).max(failed(&error.into())),
    }
}

fn failed(error: &UpdateError) -> Exit {
    print::failure(&format!("{error} [{}]", error.code()));
    print::help(error.help());
    if error.is_configuration() { Exit::Configuration } else { Exit::Undecided }
}
