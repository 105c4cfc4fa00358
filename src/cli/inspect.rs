//! `vouchd inspect`

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use crate::config::{Environment, PolicySource, RegularFile};
use crate::diagnostic::Code;
use crate::engine::{self, Engine};
use crate::fetch::host_root::{HostRoots, written};
use crate::fetch::{self, KEY_FILE_BYTES};
use crate::inspect::{Root, Trust};
use crate::manifest::Platform;
use crate::report::InspectReport;
use crate::verify::Rejection;
use crate::verify::trust::KeyMaterial;
use crate::verify::trusted_root::{TRUSTED_ROOT_BYTES, TrustedRootError};

use super::verify::{complete, parse_platform};
use super::{Exit, LocationArguments, RegistryArguments, exit_of, parse_timeout, print};

/// Show what is attached to an image and which signatures are good; no verdict
#[derive(Args, Debug)]
#[command(
    after_help = "\"verified\" says that a signature is good and about this manifest, whoever made\nit. It does not say that the image may be used: \"vouchd verify\" does. What is\nnot verified is marked untrusted: anybody may have written it.\n\nExit status: 0 asked everywhere, 2 usage, 3 something could not be asked,\n4 configuration, or a file of keys, unusable."
)]
pub(super) struct Inspect {
    /// The image, such as docker://quay.io/acme/app:1.2
    #[arg(value_name = "REF")]
    reference: String,

    #[command(flatten)]
    locations: LocationArguments,

    #[command(flatten)]
    registries: RegistryArguments,

    /// Give up after this time, such as 90, 500ms or 5m
    #[arg(long, value_name = "TIME", default_value = "90s", value_parser = parse_timeout)]
    timeout: Duration,

    /// The platform of the image in an index; default: this host's
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_parser = parse_platform)]
    platform: Option<Platform>,

    /// Check sigstore signatures without a certificate with this public key
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,

    /// Check OpenPGP signatures with the keys in this file
    #[arg(long, value_name = "FILE")]
    gpg_key: Option<PathBuf>,

    /// Check certificates with this trusted root in place of this host's
    #[arg(long, value_name = "FILE")]
    trusted_root: Option<PathBuf>,

    /// Print a JSON object
    #[arg(long)]
    json: bool,

    /// As root, let the files and variables of the user count too
    #[arg(long)]
    user_config: bool,
}

pub(super) async fn run(command: Inspect) -> Exit {
    let (reference, json) = (command.reference.clone(), command.json);
    let (report, exit) = match command.trust() {
        Ok(trust) => inspect(command, &trust).await,
        Err(Unusable { code, message, help }) => {
            (InspectReport::failed(&reference, code.as_str(), message, help), Exit::Configuration)
        }
    };
    exit.max(if json { print::json(&report) } else { print::inspection(&report) })
}

async fn inspect(command: Inspect, trust: &Trust) -> (InspectReport, Exit) {
    let environment = Environment::from_process(command.user_config);
    let policy = PolicySource::Search(environment.clone());
    let settings = command.registries.settings(command.locations.settings(environment, policy));
    let engine = Arc::new(Engine::new(settings));
    let platform = command.platform.unwrap_or_else(Platform::host);
    let name = complete(&command.reference);
    match engine.inspect(&name, &platform, trust, command.timeout, engine::now()).await {
        Ok(inspection) => {
            let exit = if inspection.is_complete() { Exit::Success } else { Exit::Undecided };
            (InspectReport::of(&command.reference, &inspection), exit)
        }
        Err(error) => (InspectReport::of_error(&command.reference, &error), exit_of(&error)),
    }
}

/// Why what the caller trusts cannot be used.
struct Unusable {
    code: Code,
    message: String,
    help: &'static str,
}

impl From<fetch::Error> for Unusable {
    fn from(error: fetch::Error) -> Self {
        Self { code: error.code(), message: error.to_string(), help: error.help() }
    }
}

impl From<Rejection> for Unusable {
    fn from(rejection: Rejection) -> Self {
        Self { code: rejection.code(), message: rejection.to_string(), help: rejection.help() }
    }
}

impl Inspect {
    /// What the caller trusts, all of which must be usable.
    fn trust(&self) -> Result<Trust, Unusable> {
        let invalid = |material: &KeyMaterial, detail| Rejection::KeyFileInvalid {
            source: material.source().to_owned(),
            detail,
        };
        let key = read(self.key.as_deref(), KEY_FILE_BYTES)?;
        if let Some(material) = &key {
            material.public_key().map_err(|error| invalid(material, error.detail()))?;
        }
        let gpg_key = read(self.gpg_key.as_deref(), KEY_FILE_BYTES)?;
        if let Some(material) = gpg_key.as_ref().filter(|material| material.certificates().is_empty()) {
            Err(invalid(material, "it holds no OpenPGP key that can be used"))?;
        }
        let root = match read(self.trusted_root.as_deref(), TRUSTED_ROOT_BYTES)? {
            Some(material) => {
                let unusable = |error: &TrustedRootError| Rejection::TrustedRootInvalid {
                    source: material.source().to_owned(),
                    error: error.clone(),
                };
                material.trusted_root().map_err(unusable)?;
                let path =
                    self.trusted_root.as_deref().and_then(|path| absolute(path).to_str().map(str::to_owned));
                Root::Named { path, material }
            }
            None => Root::Host(HostRoots::new(Environment::from_process(self.user_config)).load()?),
        };
        Ok(Trust { root, keys: key.into_iter().collect(), gpg_keys: gpg_key.into_iter().collect() })
    }
}

/// The bytes of a file that the command line names, if it names one.
fn read(path: Option<&Path>, limit: usize) -> Result<Option<Arc<KeyMaterial>>, Unusable> {
    let Some(path) = path else { return Ok(None) };
    let source = format!("\"{}\"", absolute(path).display());
    let read = |file: RegularFile| Ok((file.read(limit)?, written(&file)));
    match RegularFile::open(path).and_then(read) {
        Ok((bytes, written)) => {
            let material = KeyMaterial::new(source, bytes);
            Ok(Some(Arc::new(match written {
                Some(time) => material.written_at(time),
                None => material,
            })))
        }
        Err(error) => Err(Unusable {
            code: Code::KeyFileUnreadable,
            message: format!("cannot read {source}: {error}"),
            help: "name a file that can be read",
        }),
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
