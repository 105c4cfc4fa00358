//! `vouchd policy-lint`

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::config::{self, Environment, POLICY_BYTES, PolicyFile, PolicyPaths, PolicySource, RegularFile};
use crate::diagnostic::{Code, Severity, closest};
use crate::engine::{self, Settings};
use crate::fetch::surroundings::{self, Gatherer, Subject};
use crate::lint::draft::{Draft, Text};
use crate::lint::target::{Release, Target};
use crate::lint::{self, Case, FAULTS, Finding, RULES};
use crate::report::{LintFailure, LintReport, Linted};

use super::{Exit, LocationArguments, print};

/// Say what is wrong with a policy, or likely not what was meant
#[derive(Args, Debug)]
#[command(
    after_help = "Without a FILE, the configuration of this host is looked at as a whole: policy,\nregistries.d, registries.conf, keys, certificates and trusted root.\n\nExit status: 0 no errors, 1 errors, 2 usage, 4 a policy cannot be read."
)]
pub(super) struct PolicyLint {
    /// Look at this policy, or at standard input; default: those of this host
    #[arg(value_name = "FILE|-")]
    files: Vec<PathBuf>,

    #[command(flatten)]
    locations: LocationArguments,

    /// A tool that reads the policy: vouchd, podman@4.9, containers-image@5.36
    #[arg(long = "target", value_name = "TARGET", value_parser = Target::parse)]
    targets: Vec<Target>,

    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,

    /// Take findings of this code, or all warnings, for errors
    #[arg(long, value_name = "CODE|warnings", value_parser = Denied::parse)]
    deny: Vec<Denied>,

    /// Say nothing about findings of this code
    #[arg(long, value_name = "CODE", value_parser = parse_code)]
    allow: Vec<Code>,

    /// Take findings of this code for warnings
    #[arg(long, value_name = "CODE", value_parser = parse_code)]
    warn: Vec<Code>,

    /// Open no file that a policy names
    #[arg(long)]
    no_paths: bool,
}

/// How findings are printed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// A JSON object.
    Json,
    /// SARIF 2.1.0.
    Sarif,
    /// Workflow commands of GitHub Actions.
    Github,
}

/// What is taken for an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Denied {
    Code(Code),
    Warnings,
}

impl Denied {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "warnings" { Ok(Self::Warnings) } else { known_code(text).map(Self::Code) }
    }
}

/// A code whose severity may be changed.
fn parse_code(text: &str) -> Result<Code, String> {
    let code = known_code(text)?;
    if FAULTS.iter().any(|(fault, _)| *fault == code) {
        return Err("it keeps the policy from being used at all, and stays an error".to_owned());
    }
    Ok(code)
}

fn known_code(text: &str) -> Result<Code, String> {
    let known: Vec<Code> =
        FAULTS.iter().map(|(code, _)| *code).chain(RULES.iter().map(|rule| rule.code)).collect();
    known.iter().copied().find(|code| code.as_str() == text).ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|code| code.as_str()).collect();
        match closest(text, &names) {
            Some(near) => format!("no finding has this code; did you mean \"{near}\"?"),
            None => "no finding has this code; vouchd-codes(7) has all".to_owned(),
        }
    })
}

pub(super) fn run(command: PolicyLint) -> Exit {
    let environment = Environment::from_process(false);
    let policy = PolicySource::Search(environment.clone());
    let Settings { configuration, .. } =
        command.locations.clone().settings(environment.clone(), policy.clone());
    let is_named = command.locations.registries_d.is_some() || command.locations.registries_conf.is_some();
    let is_host = command.files.is_empty();
    let subject = match (is_host, is_named) {
        (true, _) => Subject::Host,
        (false, true) => Subject::PolicyAndStores,
        (false, false) => Subject::Policy,
    };
    let gatherer = Gatherer::new(environment.clone(), configuration, !command.no_paths, subject);
    let (mut linted, mut failures) = (Vec::new(), Vec::new());
    let read =
        if is_host { command.read_host(&environment, &policy) } else { command.read_files(&environment) };
    for read in read {
        match read {
            Ok(document) => linted.push(command.lint(document, &gatherer, &environment)),
            Err(failure) => failures.push(failure),
        }
    }
    let report = LintReport::of(&linted, failures);
    command.print(&report).max(if !report.failures.is_empty() {
        Exit::Configuration
    } else if report.errors > 0 {
        Exit::Denied
    } else {
        Exit::Success
    })
}

/// A policy to be looked at.
struct Document {
    name: String,
    bytes: Vec<u8>,
    /// The file, if it is one of this host.
    host: Option<PathBuf>,
    /// Who reads it, where nobody says so.
    targets: Vec<Target>,
}

impl PolicyLint {
    fn read_files(&self, environment: &Environment) -> Vec<Result<Document, LintFailure>> {
        let read = |path: &PathBuf| {
            let name = path.to_string_lossy().into_owned();
            let bytes = if name == "-" {
                super::read_stdin(POLICY_BYTES)
            } else {
                RegularFile::open(path).and_then(|file| file.read(POLICY_BYTES))
            };
            let failed = |error: io::Error| LintFailure {
                message: format!("cannot read \"{name}\": {error}"),
                file: name.clone(),
                code: Code::PolicyUnreadable.as_str(),
                help: "name a regular file of at most 32 MiB that you may read".to_owned(),
            };
            let bytes = bytes.map_err(failed)?;
            Ok(Document { name, bytes, host: None, targets: readers(environment, path) })
        };
        self.files.iter().map(read).collect()
    }

    /// The policy of this host; where vouchd has its own, that of the other tools, too.
    fn read_host(
        &self,
        environment: &Environment,
        source: &PolicySource,
    ) -> Vec<Result<Document, LintFailure>> {
        let read = |source: &PolicySource| match source.read() {
            Ok(PolicyFile { path, bytes }) => {
                let targets = readers(environment, &path);
                Ok(Document { name: path.to_string_lossy().into_owned(), bytes, host: Some(path), targets })
            }
            Err(error) => Err(failure(&error)),
        };
        let first = read(source);
        let is_own = |document: &Document| document.host.as_ref() == Some(&environment.policies().own);
        let second = match &first {
            Ok(document) if is_own(document) => surroundings::others(environment),
            Ok(_) | Err(_) => None,
        };
        let second = second.map(|path| read(&PolicySource::Explicit(path)));
        std::iter::once(first).chain(second).collect()
    }

    fn lint(&self, document: Document, gatherer: &Gatherer, environment: &Environment) -> Linted {
        let Document { name, bytes, host, targets } = document;
        let targets = if self.targets.is_empty() { targets } else { self.targets.clone() };
        let text = Text::read(&bytes);
        let tree = text.tree();
        let draft = Draft::of(&text, tree.as_ref());
        let mut around = gatherer.gather(&lint::needs(&draft));
        around.host = host.map(|path| surroundings::host(environment, &path, &bytes));
        let case = Case::new(&draft, &bytes, &targets, &around, engine::now());
        let findings = case.findings().into_iter().filter_map(|finding| self.judge(finding)).collect();
        Linted { name, bytes, findings }
    }

    /// The finding as the options have it: the strictest of them counts.
    fn judge(&self, finding: Finding) -> Option<Finding> {
        let is_fault = FAULTS.iter().any(|(fault, _)| *fault == finding.code);
        let severity = if is_fault || self.deny.contains(&Denied::Code(finding.code)) {
            Severity::Error
        } else if self.warn.contains(&finding.code) {
            Severity::Warning
        } else if self.allow.contains(&finding.code) {
            return None;
        } else {
            finding.severity
        };
        let all = self.deny.contains(&Denied::Warnings) && severity == Severity::Warning;
        Some(Finding { severity: if all { Severity::Error } else { severity }, ..finding })
    }

    fn print(&self, report: &LintReport) -> Exit {
        if !matches!(self.format, Format::Json) {
            for failure in &report.failures {
                print::failure(&format!("{} [{}]", failure.message, failure.code));
                print::help(&failure.help);
            }
        }
        match self.format {
            Format::Text => print::text(&report.text()),
            Format::Json => print::json(report),
            Format::Sarif => print::json(&report.sarif()),
            Format::Github => print::text(&report.github()),
        }
    }
}

/// Who reads a policy in this place: podman and others, too, where they look for theirs.
fn readers(environment: &Environment, path: &Path) -> Vec<Target> {
    let PolicyPaths { own: _, user, system, vendor } = environment.policies();
    let named = environment.user.as_ref().and_then(|user| user.policy_json.clone());
    let is_common = [user, named, Some(system), Some(vendor)].iter().flatten().any(|common| common == path);
    let other = is_common.then_some(Target::ContainersImage(Release::Latest));
    std::iter::once(Target::Vouchd).chain(other).collect()
}

fn failure(error: &config::Error) -> LintFailure {
    let file = error.policy_path().unwrap_or(Path::new("policy.json"));
    LintFailure {
        file: file.to_string_lossy().into_owned(),
        code: error.code().as_str(),
        message: error.to_string(),
        help: error.help().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Design decision 3.3.
    #[test]
    fn where_podman_looks_for_its_policy_podman_reads_it() {
        let environment = Environment {
            root: PathBuf::from("/r"),
            uid: 1000,
            user: Some(config::User {
                policy_json: Some(PathBuf::from("/named.json")),
                ..config::User::at_home("/home/u")
            }),
        };
        for (path, count) in [
            ("/r/etc/vouchd/policy.json", 1),
            ("/r/etc/containers/policy.json", 2),
            ("/r/usr/share/containers/policy.json", 2),
            ("/home/u/.config/containers/policy.json", 2),
            ("/named.json", 2),
            ("policy.json", 1),
            ("-", 1),
        ] {
            assert_eq!(readers(&environment, Path::new(path)).len(), count, "{path}");
        }
    }
}
