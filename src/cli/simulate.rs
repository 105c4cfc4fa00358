//! `vouchd simulate`

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use crate::config::{CONFIGURATION_BYTES, Environment, PolicySource, RegularFile};
use crate::diagnostic::Code;
use crate::engine::{self, Answer, Engine, LoadedPolicy, PolicyChoice, Settings, Undecided};
use crate::evaluate::evidence::Question;
use crate::manifest::Platform;
use crate::reference::{ImageReference, REFERENCE_BYTES};
use crate::report::{FailureReport, Report, Route, SimulateReport, SimulatedImage};

use super::verify::{Argument, SubjectArgument, parse_platform};
use super::{Exit, LocationArguments, RegistryArguments, exit_of, parse_timeout, print};

/// Say what a new policy would change for a list of images
#[derive(Args, Debug)]
#[command(
    after_help = "Exit status: 0 what is allowed stays allowed, what is verified stays so;\n1 it does not; 2 usage; 3 an image could not be judged; 4 policy or\nconfiguration unusable."
)]
pub(super) struct Simulate {
    /// The policy to try
    #[arg(long, value_name = "NEW")]
    policy: PathBuf,

    /// The policy to compare it with; default: that of this host
    #[arg(long, value_name = "OLD")]
    against: Option<PathBuf>,

    /// The images, one on each line of this file, or of standard input
    #[arg(long, value_name = "FILE|-")]
    refs: PathBuf,

    #[command(flatten)]
    locations: LocationArguments,

    #[command(flatten)]
    registries: RegistryArguments,

    /// Give up on an image after this time, such as 90, 500ms or 5m
    #[arg(long, value_name = "TIME", default_value = "90s", value_parser = parse_timeout)]
    timeout: Duration,

    /// Refuse unless a signature was required and verified
    #[arg(long)]
    require_signature: bool,

    /// The platform of the images in an index; default: this host's
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_parser = parse_platform)]
    platform: Option<Platform>,

    /// Which manifest of a multi-platform image must satisfy the policies
    #[arg(long, value_enum, default_value = "either")]
    subject: SubjectArgument,

    /// Print a JSON object
    #[arg(long)]
    json: bool,

    /// As root, let the files and variables of the user count too
    #[arg(long)]
    user_config: bool,
}

pub(super) async fn run(command: Simulate) -> Exit {
    match simulate(&command).await {
        Ok((report, exit)) => {
            let printed = if command.json { print::json(&report) } else { print::simulation(&report) };
            exit.max(printed)
        }
        Err(Failure { exit, report }) => {
            if command.json {
                return exit.max(print::json(&SimulateReport::of_failure(report)));
            }
            print::failure(&format!("{} [{}]", report.message, report.code));
            print::help(&report.help);
            exit
        }
    }
}

/// Why nothing can be judged.
struct Failure {
    exit: Exit,
    report: FailureReport,
}

impl Failure {
    fn of_list(message: String, help: &str) -> Self {
        let (code, help) = (Code::Usage.to_string(), help.to_owned());
        Self { exit: Exit::Usage, report: FailureReport { code, message, help } }
    }
}

impl From<engine::Error> for Failure {
    fn from(error: engine::Error) -> Self {
        let (code, help) = (error.code().to_string(), error.help().to_owned());
        let report = FailureReport { code, message: error.to_string(), help };
        Self { exit: exit_of(&error), report }
    }
}

async fn simulate(command: &Simulate) -> Result<(SimulateReport, Exit), Failure> {
    let listed = read_list(&command.refs)?;
    let trial = Trial::new(command).await?;
    let mut judging = stream::iter(&listed).map(|listed| trial.judge(listed)).buffer_unordered(AT_A_TIME);
    let mut judged: Vec<(SimulatedImage, Exit)> = Vec::new();
    print::progress(0, listed.len());
    while let Some(image) = judging.next().await {
        judged.push(image);
        print::progress(judged.len(), listed.len());
    }
    print::progress_ended(listed.len());
    judged.sort_by_key(|(image, _)| image.line);
    let exit = judged.iter().map(|(_, exit)| *exit).max().unwrap_or(Exit::Success);
    let images = judged.into_iter().map(|(image, _)| image).collect();
    Ok((SimulateReport::of(&trial.new.policy, &trial.old.policy, images), exit))
}

/// A line of the list that names an image, or should.
struct Listed {
    line: usize,
    /// As it stands there, or the beginning of what is too long.
    text: String,
    argument: Result<Argument, &'static str>,
}

fn read_list(path: &Path) -> Result<Vec<Listed>, Failure> {
    let read = if path.as_os_str() == OsStr::new("-") {
        super::read_stdin(CONFIGURATION_BYTES)
    } else {
        RegularFile::open(path).and_then(|file| file.read(CONFIGURATION_BYTES))
    };
    let bytes = read.map_err(|error| {
        let message = format!("cannot read the list of images \"{}\": {error}", path.display());
        Failure::of_list(message, "name a regular file of at most 4 MiB, or \"-\" for standard input")
    })?;
    let listed: Vec<Listed> = bytes
        .split(|byte| *byte == b'\n')
        .zip(1..)
        .filter_map(|(text, line)| Listed::read(text, line))
        .collect();
    let name = path.display();
    match listed.len() {
        // Nothing asked is no yes.
        0 => Err(Failure::of_list(
            format!("the list of images \"{name}\" names none"),
            "write one name on each line, such as quay.io/acme/app:1.2",
        )),
        1..=IMAGES => Ok(listed),
        count => Err(Failure::of_list(
            format!("the list of images \"{name}\" names {count}; at most {IMAGES} are judged"),
            "split the list",
        )),
    }
}

impl Listed {
    /// Nothing if the line is empty or a comment.
    fn read(line_text: &[u8], line: usize) -> Option<Self> {
        let bytes = line_text.trim_ascii();
        if bytes.is_empty() || bytes.starts_with(b"#") {
            return None;
        }
        let beginning: String = String::from_utf8_lossy(bytes).chars().take(SHOWN).collect();
        let unusable = |why| Self { line, text: beginning.clone(), argument: Err(why) };
        Some(match str::from_utf8(bytes) {
            Err(_) => unusable("the line is not an image name: it is not UTF-8"),
            Ok(text) if text.len() > LINE_BYTES => unusable("the line is not an image name: it is too long"),
            Ok(text) => Self { line, text: text.to_owned(), argument: Ok(Argument::parse(text)) },
        })
    }
}

/// A policy, read once, so that all images are judged by the same, and what judges by it.
struct Judge {
    engine: Arc<Engine>,
    policy: Arc<LoadedPolicy>,
}

impl Judge {
    /// Reads the policy, and whether the rest of the configuration can be used.
    async fn new(settings: Settings, timeout: Duration) -> Result<Self, engine::Error> {
        let policy = Arc::new(Engine::new(settings.clone())).check_within(timeout).await?;
        let settings = Settings { policy: PolicyChoice::Made(Arc::clone(&policy)), ..settings };
        Ok(Self { engine: Arc::new(Engine::new(settings)), policy })
    }
}

/// What one policy says.
type Judged = Result<Answer, Box<Undecided>>;

/// A policy that is tried beside the one that counts.
struct Trial {
    old: Judge,
    new: Judge,
    question: Question,
    timeout: Duration,
}

impl Trial {
    async fn new(command: &Simulate) -> Result<Self, engine::Error> {
        let environment = Environment::from_process(command.user_config);
        let settings = |source| {
            let settings = command.locations.clone().settings(environment.clone(), source);
            command.registries.clone().settings(settings)
        };
        let old = match &command.against {
            Some(path) => PolicySource::Explicit(path.clone()),
            None => PolicySource::Search(environment.clone()),
        };
        let new = PolicySource::Explicit(command.policy.clone());
        Ok(Self {
            old: Judge::new(settings(old), command.timeout).await?,
            new: Judge::new(settings(new), command.timeout).await?,
            timeout: command.timeout,
            question: Question {
                require_signature: command.require_signature,
                subject: command.subject.into(),
                platform: command.platform.clone().unwrap_or_else(Platform::host),
            },
        })
    }

    /// The image under both policies, and what that means for the exit status.
    async fn judge(&self, listed: &Listed) -> (SimulatedImage, Exit) {
        let Listed { line, text, argument } = listed;
        let (old, new, exit) = match argument {
            Ok(argument) => self.judge_argument(text, argument).await,
            Err(why) => {
                let help = "write one name on each line, such as quay.io/acme/app:1.2";
                let report = undecided(text, Code::InvalidReference, why, help);
                (report.clone(), report, Exit::Undecided)
            }
        };
        let image = SimulatedImage::of(text, *line, &old, &new);
        let loss = if image.change.is_loss() { Exit::Denied } else { Exit::Success };
        (image, exit.max(loss))
    }

    async fn judge_argument(&self, text: &str, argument: &Argument) -> (Report, Report, Exit) {
        let mut question = self.question.clone();
        question.require_signature |= argument.require_signature;
        let deadline = Instant::now() + self.timeout;
        let mut judged = self.judge_name(&argument.name, &question, deadline).await;
        if is_changed(&judged) {
            judged = self.judge_name(&argument.name, &question, deadline).await;
        }
        if is_changed(&judged) {
            let why = "the name led to one manifest for the old policy, and to another one for the new";
            let report = undecided(text, Code::ImageChanged, why, "try again, or name the image by digest");
            return (report.clone(), report, Exit::Undecided);
        }
        let (old, new) = judged;
        let errors = [&old, &new].into_iter().filter_map(|judged| judged.as_ref().err());
        let exit = errors.map(|undecided| exit_of_image(&undecided.error)).max().unwrap_or(Exit::Success);
        let report = |judged: &Judged| {
            let mut report = match judged {
                Ok(answer) => Report::of_answer(text, Route::Direct, answer),
                Err(undecided) => Report::of_undecided(text, Route::Direct, undecided),
            };
            report.warnings.extend(argument.warning.map(str::to_owned));
            report
        };
        (report(&old), report(&new), exit)
    }

    /// What both policies say at this moment. Nothing is asked twice that can only have the same answer.
    async fn judge_name(&self, name: &str, question: &Question, deadline: Instant) -> (Judged, Judged) {
        let now = engine::now();
        let left = || deadline.saturating_duration_since(Instant::now());
        if let Some(image) = self.find_unaffected(name, left()).await {
            let old = self.old.engine.verify(name, question, None, left(), now).await;
            if let Some(new) = self.under_new(&image, &old) {
                return (old, new);
            }
        }
        tokio::join!(
            self.old.engine.verify(name, question, None, left(), now),
            self.new.engine.verify(name, question, None, left(), now),
        )
    }

    /// The image, if it is in a registry and both policies require the same of it. What other transports mean can
    /// depend on the platform, and is at hand anyway.
    async fn find_unaffected(&self, name: &str, timeout: Duration) -> Option<ImageReference> {
        let image = self.old.engine.explain_within(name.to_owned(), timeout).await.ok()?.image;
        let old = self.old.policy.policy.lookup(&image).requirements;
        let new = self.new.policy.policy.lookup(&image).requirements;
        (image.in_registry().is_some() && old == new).then_some(image)
    }

    /// What the new policy says of an image of which it requires what the old one does: a verdict depends on nothing
    /// else in a policy. Nothing if the name has come to mean another image.
    fn under_new(&self, image: &ImageReference, old: &Judged) -> Option<Judged> {
        let policy = Arc::clone(&self.new.policy);
        let matched = self.new.policy.policy.lookup(image);
        match old {
            Ok(answer) if answer.image != *image => None,
            Ok(answer) => {
                let mut answer = Answer { policy, ..answer.clone() };
                (answer.verdict.scope, answer.verdict.scope_span) = (matched.scope, matched.span);
                Some(Ok(answer))
            }
            Err(undecided) => {
                let scope = undecided.scope.as_ref().map(|_| (matched.scope, matched.span));
                Some(Err(Box::new(Undecided { policy: Some(policy), scope, ..(**undecided).clone() })))
            }
        }
    }
}

/// Whether the policies judged different manifests, so that their verdicts cannot be compared.
fn is_changed((old, new): &(Judged, Judged)) -> bool {
    let resolved =
        |judged: &Judged| judged.as_ref().ok().and_then(|answer| answer.verdict.resolved_digest.clone());
    resolved(old).zip(resolved(new)).is_some_and(|(old, new)| old != new)
}

fn undecided(text: &str, code: Code, message: &str, help: &str) -> Report {
    Report::undecided(text, Route::Direct, code.as_str(), message.to_owned(), help)
}

/// A name in a list that is wrong says nothing about the command line.
fn exit_of_image(error: &engine::Error) -> Exit {
    match exit_of(error) {
        Exit::Usage => Exit::Undecided,
        exit @ (Exit::Success | Exit::Denied | Exit::Undecided | Exit::Configuration) => exit,
    }
}

/// Most images judged at the same time: 8, each under both policies.
const AT_A_TIME: usize = 8;

/// Most images in a list: 10,000, so that the report can be held.
const IMAGES: usize = 10_000;

/// Longest line that can be a name: 1 KiB, and as much again for prefixes and whatever else its message can tell.
const LINE_BYTES: usize = 2 * REFERENCE_BYTES;

/// Characters that are shown of a line that is none.
const SHOWN: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_lines_and_comments_are_passed_over_and_the_rest_is_not() {
        for (line, name) in [
            ("", None),
            (" \t\r", None),
            ("# docker://h.example/a", None),
            ("  #", None),
            (" quay.io/a/b:1 \r", Some("docker://quay.io/a/b:1")),
            ("dir:/a#b", Some("dir:/a#b")),
            ("a b", Some("a b")),
            ("ostree-image-signed:registry:q.io/a", Some("docker://q.io/a")),
        ] {
            let listed = Listed::read(line.as_bytes(), 1);
            assert_eq!(listed.map(|l| l.argument.unwrap().name).as_deref(), name, "{line:?}");
        }
        for line in [&b"dir:/\xff"[..], &[b'a'; LINE_BYTES + 1]] {
            let listed = Listed::read(line, 7).unwrap();
            assert!(listed.argument.is_err() && listed.line == 7 && listed.text.len() <= SHOWN);
        }
        assert!(Listed::read(&[b'a'; LINE_BYTES], 1).unwrap().argument.is_ok());
    }
}
