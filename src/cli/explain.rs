//! `vouchd explain`

use clap::Args;

use crate::config::Environment;
use crate::engine::Engine;
use crate::report::{ExplainReport, Report, Route};

use super::{Exit, PolicyArguments, exit_of, print, verify};

/// Explain, offline, what the policy requires of an image and where
/// signatures are looked for
#[derive(Args, Debug)]
pub(super) struct Explain {
    /// The image, such as docker://quay.io/acme/app:1.2
    #[arg(value_name = "REF")]
    reference: String,

    #[command(flatten)]
    policy: PolicyArguments,

    /// Print a JSON object
    #[arg(long)]
    json: bool,

    /// As root, let the files and variables of the user count too
    #[arg(long)]
    user_config: bool,
}

pub(super) fn run(command: Explain) -> Exit {
    let environment = Environment::from_process(command.user_config);
    let engine = Engine::new(command.policy.settings(environment));
    match engine.explain(&verify::complete(&command.reference)) {
        Ok(explanation) => {
            let report = ExplainReport::of(&command.reference, &explanation);
            if command.json { print::json(&report) } else { print::explanation(&report) }
        }
        Err(error) => {
            let report = Report::of_error(&command.reference, Route::Direct, &error);
            let printed = if command.json {
                print::json(&report)
            } else {
                print::refusal(&report);
                Exit::Success
            };
            printed.max(exit_of(&error))
        }
    }
}
