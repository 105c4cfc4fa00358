//! Rendering for people and machines. Nothing else prints.

use std::io::{self, ErrorKind, IsTerminal, Write};

use serde::Serialize;

use crate::diagnostic::{escape, escape_json};
use crate::digest::Digest;
use crate::fetch::trust_update::Outcome;
use crate::report::{
    Change, DaemonReport, EndpointReport, ExplainReport, FailureReport, FindingReport, Health, HearsayReport,
    InspectReport, ItemReport, LogEntryReport, PlaceReport, ProvenReport, Report, RequirementReport,
    STALE_AFTER_DAYS, ScopeReport, SignatureReport, SignerReport, SimulateReport, SimulatedImage,
    SimulatedVerdict, Standing, StatusReport, TrustReport, TufReport,
};

use crate::verify::bundle::{BundleClaim, Subject};
use crate::verify::{Signer, Timestamp};

use super::Exit;

/// Writes to standard output. A reader that went away is no failure, because the exit code still tells; output
/// that is lost, as on a full disk, is one.
fn out(text: &str) -> Exit {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Exit::Success,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Exit::Success,
        Err(error) => {
            failure(&format!("cannot write the answer: {error}"));
            Exit::Undecided
        }
    }
}

/// Writes to standard error.
fn err(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// One line of output.
#[must_use]
pub(super) fn line(text: &str) -> Exit {
    out(&format!("{}\n", escape(text)))
}

/// Text of several lines, which is escaped already.
#[must_use]
pub(super) fn text(text: &str) -> Exit {
    out(text)
}

/// What to know besides, where the answer itself must stand alone.
pub(super) fn warnings(report: &Report) {
    for warning in &report.warnings {
        err(&format!("warning: {}\n", escape(warning)));
    }
}

/// Why the command could not do its work.
pub(super) fn failure(message: &str) {
    err(&format!("vouchd: {}\n", escape(message)));
}

/// What can be done about a failure.
pub(super) fn help(text: &str) {
    err(&format!("help: {}\n", escape(text)));
}

/// A file that was verified.
#[must_use]
pub(super) fn blob(
    name: &str,
    digest: &Digest,
    signer: &Signer,
    claim: &BundleClaim,
    warning: Option<&str>,
) -> Exit {
    let mut text = format!("{}: verified\n  digest    {digest}\n", escape(name));
    text.push_str(&format!("  signer    {}\n", who(&SignerReport::of(signer))));
    for time in &claim.times {
        text.push_str(&format!("  time      {time}\n"));
    }
    for entry in &claim.log_entries {
        let index = entry.index.map(|index| format!(", entry {index}")).unwrap_or_default();
        text.push_str(&format!("  log       {}{index}\n", escape(&entry.log)));
    }
    if let Subject::Statement { predicate_type, .. } = &claim.subject {
        text.push_str(&format!("  predicate {}\n", escape(predicate_type)));
    }
    if let Some(warning) = warning {
        text.push_str(&format!("warning: {}\n", escape(warning)));
    }
    out(&text)
}

/// One JSON object on one line.
#[must_use]
pub(super) fn json(report: &impl Serialize) -> Exit {
    match serde_json::to_string(report) {
        Ok(text) => out(&format!("{}\n", escape_json(&text))),
        Err(error) => {
            failure(&format!("cannot write the report: {error}"));
            Exit::Undecided
        }
    }
}

/// One line that says why an image must not be used.
pub(super) fn refusal(report: &Report) {
    let mut text = format!("vouchd: {}\n", headline(report));
    push_problems(&mut text, report);
    if let Some(help) = &report.help {
        text.push_str(&format!("help: {}\n", escape(help)));
    }
    err(&text);
}

/// The faults of the policy after the first, which is the headline.
fn push_problems(text: &mut String, report: &Report) {
    for problem in report.problems.iter().skip(1).take(PROBLEMS) {
        let (line, column) = (problem.line, problem.column);
        text.push_str(&format!(
            "  also {line}:{column}: {} [{}]",
            escape(&problem.message),
            escape(&problem.code)
        ));
        if let Some(help) = &problem.help {
            text.push_str(&format!("; {}", escape(help)));
        }
        text.push('\n');
    }
}

fn headline(report: &Report) -> String {
    let reference = escape(&report.reference);
    let reason = || {
        let message = escape(report.message.as_deref().unwrap_or_default());
        format!("{message} [{}]", escape(report.code.as_deref().unwrap_or_default()))
    };
    match (report.allowed, report.decided) {
        (true, _) if report.authenticated => format!("{reference}: allowed, signature verified"),
        (true, _) => format!("{reference}: allowed, no signature required"),
        (false, true) => format!("{reference}: denied: {}", reason()),
        (false, false) => format!("{reference}: not decided: {}", reason()),
    }
}

/// A whole report. What could not be decided goes to standard error.
#[must_use]
pub(super) fn report(report: &Report) -> Exit {
    let mut text = format!("{}\n", headline(report));
    report.scope.iter().for_each(|scope| push_scope(&mut text, scope));
    if let Some(policy) = &report.policy {
        if report.scope.is_none() {
            text.push_str(&format!("  policy    {}\n", escape(&policy.path)));
        }
        text.push_str(&format!("            {}\n", escape(&policy.digest)));
    }
    if report.decided && report.policy.is_none() {
        text.push_str("  policy    the options of this command\n");
    }
    push_problems(&mut text, report);
    if let Some(digest) = report.manifest_digest.as_ref().or(report.resolved_digest.as_ref()) {
        text.push_str(&format!("  manifest  {}\n", escape(digest)));
    }
    if let Some(digest) =
        report.instance_digest.as_ref().filter(|d| Some(*d) != report.manifest_digest.as_ref())
    {
        text.push_str(&format!("  instance  {}\n", escape(digest)));
    }
    let several = report.requirements.iter().any(|r| r.subject == "instance");
    for requirement in &report.requirements {
        push_requirement(&mut text, requirement, several, report.message.as_deref());
    }
    if let Some(source) = &report.source {
        text.push_str(&format!("  from      {}\n", escape(source)));
    }
    if let (true, Some(others)) = (several, &report.would_accept) {
        text.push_str(&format!(
            "  others    podman and skopeo copy would {}, the skopeo image proxy would {}\n",
            would(others.podman),
            would(others.skopeo_image_proxy)
        ));
    }
    if let Some(pinned) = &report.pinned_reference {
        let note = match report.pinned_reference_accepted {
            Some(true) => "",
            Some(false) => "  (the policy refuses this form: use the tag and compare digests)",
            None => "  (not judged in this form: registries.conf leads digests to another place)",
        };
        text.push_str(&format!("  pinned    {}{note}\n", escape(pinned)));
    }
    for warning in &report.warnings {
        text.push_str(&format!("warning: {}\n", escape(warning)));
    }
    if let Some(help) = &report.help {
        text.push_str(&format!("help: {}\n", escape(help)));
    }
    if report.decided {
        out(&text)
    } else {
        err(&text);
        Exit::Success
    }
}

fn push_scope(text: &mut String, scope: &ScopeReport) {
    let name = match &scope.transport {
        Some(transport) => format!("scope {} \"{}\"", escape(transport), escape(&scope.name)),
        None => escape(&scope.name),
    };
    let (line, column) = (scope.line, scope.column);
    text.push_str(&format!("  policy    {}:{line}:{column}, {name}\n", escape(&scope.file)));
}

fn would(accept: Option<bool>) -> &'static str {
    match accept {
        Some(true) => "accept it",
        Some(false) => "refuse it",
        None => "judge something else",
    }
}

/// A reason is not repeated: neither the headline's nor those of the signatures below.
fn push_requirement(
    text: &mut String,
    requirement: &RequirementReport,
    several: bool,
    headline: Option<&str>,
) {
    let subject = if several { format!(" of the {}", escape(&requirement.subject)) } else { String::new() };
    let code = escape(requirement.code.as_deref().unwrap_or_default());
    let outcome = match requirement.message.as_deref() {
        _ if requirement.satisfied => "satisfied".to_owned(),
        Some(message) if requirement.signatures.is_empty() && headline != Some(message) => {
            format!("not satisfied: {} [{code}]", escape(message))
        }
        Some(_) | None => format!("not satisfied [{code}]"),
    };
    text.push_str(&format!("  {}{subject}: {outcome}\n", escape(&requirement.kind)));
    for signature in &requirement.signatures {
        push_signature(text, signature);
    }
}

fn push_signature(text: &mut String, signature: &SignatureReport) {
    let location = escape(&signature.location);
    match &signature.signer {
        Some(signer) if signature.accepted => {
            let time = signature.time.as_ref().map(|t| format!(", {}", escape(t))).unwrap_or_default();
            text.push_str(&format!("    counts      {location}: {}{time}\n", who(signer)));
        }
        Some(_) | None => {
            let message = escape(signature.message.as_deref().unwrap_or_default());
            let code = escape(signature.code.as_deref().unwrap_or_default());
            text.push_str(&format!("    not counted {location}: {message} [{code}]\n"));
        }
    }
}

fn who(signer: &SignerReport) -> String {
    match (&signer.subject, &signer.issuer) {
        (Some(subject), Some(issuer)) => format!("{} by way of {}", escape(subject), escape(issuer)),
        (None, _) | (_, None) if signer.kind == "openpgp" => format!("OpenPGP key {}", escape(&signer.id)),
        (None, _) | (_, None) => format!("public key {}", escape(&signer.id)),
    }
}

/// How many of so many images are judged, for who waits at a terminal.
pub(super) fn progress(done: usize, of: usize) {
    if io::stderr().is_terminal() {
        err(&format!("\r{}", how_far(done, of)));
    }
}

/// Takes the last word of [`progress`] away again.
pub(super) fn progress_ended(of: usize) {
    if io::stderr().is_terminal() {
        err(&format!("\r{}\r", " ".repeat(how_far(of, of).len())));
    }
}

fn how_far(done: usize, of: usize) -> String {
    format!("{done} of {of} images judged")
}

/// What a new policy would change, and why.
#[must_use]
pub(super) fn simulation(report: &SimulateReport) -> Exit {
    let mut text = String::new();
    for (which, policy) in [("old", &report.against), ("new", &report.policy)] {
        if let Some(policy) = policy {
            text.push_str(&format!("{which} policy  {}\n", escape(&policy.path)));
        }
    }
    let names: Vec<String> = report.images.iter().map(|image| escape(&image.reference)).collect();
    // One long name must not push the verdicts of all others out of sight.
    let longest = names.iter().map(|name| name.chars().count()).filter(|length| *length <= COLUMN).max();
    let width = longest.unwrap_or_default().max("image".len());
    let mut row = |name: &str, old: &str, new: &str, change: &str| {
        text.push_str(&format!("{name:<width$}  {old:<19}  {new:<19}  {change}\n"));
    };
    row("image", "old", "new", "change");
    for (name, image) in names.iter().zip(&report.images) {
        row(name, image.old.standing().as_str(), image.new.standing().as_str(), image.change.as_str());
    }
    for (name, image) in names.iter().zip(&report.images) {
        push_change(&mut text, name, image);
    }
    let counts = report.counts.all().into_iter().filter(|(_, count)| *count > 0);
    let counts: Vec<String> = counts.map(|(change, count)| format!("{count} {}", change.as_str())).collect();
    let noun = if names.len() == 1 { "image" } else { "images" };
    text.push_str(&format!("{} {noun}: {}\n", names.len(), counts.join(", ")));
    out(&text)
}

/// The reason of a change: what the new policy says, and where the old one could not be asked, why.
fn push_change(text: &mut String, name: &str, image: &SimulatedImage) {
    let SimulatedImage { change, line, old, new, .. } = image;
    match change {
        Change::Same => {}
        Change::Unknown => {
            text.push_str(&format!("line {line}, {name}: unknown: {}\n", outcome(old)));
            push_verdict(text, old);
            if (&old.code, &old.message) != (&new.code, &new.message) {
                text.push_str(&format!("  under the new policy: {}\n", outcome(new)));
                push_verdict(text, new);
            }
        }
        Change::NoLongerVerified
        | Change::NowAllowed
        | Change::NowRefused
        | Change::NowUndecided
        | Change::NowVerified => {
            text.push_str(&format!("line {line}, {name}: {}: {}\n", change.as_str(), outcome(new)));
            push_verdict(text, new);
        }
    }
    let warnings =
        new.warnings.iter().filter(|warning| *change != Change::Same || !old.warnings.contains(warning));
    for warning in warnings {
        text.push_str(&format!("warning: line {line}, {name}: {}\n", escape(warning)));
    }
}

fn outcome(verdict: &SimulatedVerdict) -> String {
    match verdict.standing() {
        Standing::AllowedUnverified => "no signature required".to_owned(),
        Standing::AllowedVerified => "signature verified".to_owned(),
        Standing::Denied | Standing::Undecided => {
            let message = escape(verdict.message.as_deref().unwrap_or_default());
            format!("{message} [{}]", escape(verdict.code.as_deref().unwrap_or_default()))
        }
    }
}

fn push_verdict(text: &mut String, verdict: &SimulatedVerdict) {
    verdict.scope.iter().for_each(|scope| push_scope(text, scope));
    for signer in &verdict.signers {
        text.push_str(&format!("  signer    {}\n", who(signer)));
    }
    if let Some(help) = &verdict.help {
        text.push_str(&format!("  help: {}\n", escape(help)));
    }
}

/// The trusted root of this host.
#[must_use]
pub(super) fn trusted_root(report: &TrustReport) -> Exit {
    let mut text = String::new();
    push_trusted_root(&mut text, report);
    let mut rows = Vec::new();
    for instance in &report.instances {
        let until = instance.until.as_deref().map(|time| format!(" until {time}")).unwrap_or_default();
        rows.push((instance.kind, escape(&instance.url), format!("since {}{until}", instance.since)));
    }
    let width = rows.iter().map(|(_, url, _)| url.len()).max().unwrap_or(0);
    for (kind, url, time) in rows {
        text.push_str(&format!("  {kind:<21} {url:<width$}  {time}\n"));
    }
    out(&text)
}

/// What became of it, where it cannot be told whether it counts.
#[must_use]
pub(super) fn trust_written(outcome: &Outcome) -> Exit {
    out(&written(outcome))
}

fn written(outcome: &Outcome) -> String {
    let path = escape(&outcome.path.to_string_lossy());
    match (outcome.before, outcome.after) {
        (Some(before), Some(after)) if before == after => format!("\"{path}\" is there already\n"),
        (Some(before), Some(after)) => {
            format!("wrote \"{path}\": targets {} instead of {}\n", after.targets, before.targets)
        }
        (None, Some(after)) => format!("wrote \"{path}\": targets {}\n", after.targets),
        (_, None) => {
            format!("wrote \"{path}\": it counts in place of all updates until you remove it\n")
        }
    }
}

/// What became of it, and whether that counts.
#[must_use]
pub(super) fn trust_outcome(outcome: &Outcome, report: &TrustReport, counts: bool) -> Exit {
    let mut text = written(outcome);
    push_trusted_root(&mut text, report);
    let exit = out(&text);
    if !counts {
        let path = escape(&outcome.path.to_string_lossy());
        err(&format!(
            "warning: \"{path}\" does not count: vouchd.toml or a file in /etc/vouchd comes first\n"
        ));
    }
    exit
}

/// The state of this host. What needs attention comes last.
#[must_use]
pub(super) fn status(report: &StatusReport) -> Exit {
    let policy = &report.policy;
    let path = policy.path.as_deref().map_or_else(|| "none".to_owned(), escape);
    let mut text = format!("policy        {path}, {}\n", policy.state);
    if let Some(digest) = &policy.digest {
        text.push_str(&format!("              {}\n", escape(digest)));
    }
    for scope in policy.accepts_unsigned.iter().take(SCOPES) {
        let name = match &scope.transport {
            Some(transport) => format!("{} \"{}\"", escape(transport), escape(&scope.name)),
            None => escape(&scope.name),
        };
        let (line, column) = (scope.line, scope.column);
        text.push_str(&format!("  unsigned    {name} at {line}:{column} needs no signature\n"));
    }
    if let Some(more) = policy.accepts_unsigned.len().checked_sub(SCOPES).filter(|more| *more > 0) {
        text.push_str(&format!("  unsigned    and {more} more\n"));
    }
    if let Some(root) = &report.trusted_root {
        let until = root.current_until.as_deref().unwrap_or("unknown");
        let stale = if root.stale { ", stale" } else { "" };
        text.push_str(&format!("trusted root  {}, current until {until}{stale}\n", escape(&root.source)));
    }
    push_daemon(&mut text, &report.daemon);
    for fault in policy.fault.iter().chain(&report.configuration) {
        text.push_str(&format!("unusable      {} [{}]\n", escape(&fault.message), escape(&fault.code)));
        text.push_str(&format!("help: {}\n", escape(&fault.help)));
    }
    for line in &report.attention {
        text.push_str(&format!("attention     {}\n", escape(line)));
    }
    let health = match report.health {
        Health::Healthy => "healthy",
        Health::Attention => "something needs attention",
        Health::Undecided => "the daemon does not run, or cannot be asked",
        Health::Unusable => "images are refused until this is mended",
    };
    text.push_str(&format!("{health}\n"));
    out(&text)
}

fn push_daemon(text: &mut String, daemon: &DaemonReport) {
    let known = |value: &Option<String>| value.as_deref().map(escape);
    let mut words = vec![if daemon.running { "running" } else { "not running" }.to_owned()];
    words.extend(known(&daemon.version).map(|version| format!("version {version}")));
    words.extend(known(&daemon.since).map(|since| format!("since {since}")));
    words.extend(known(&daemon.enabled).map(|enabled| format!("unit {enabled}")));
    text.push_str(&format!("daemon        {}\n", words.join(", ")));
    if let Some(state) = known(&daemon.policy_state) {
        let path = known(&daemon.policy_path).unwrap_or_else(|| "none".to_owned());
        text.push_str(&format!("  its policy  {path}, {state}\n"));
    }
    for (outcome, count) in daemon.counters.iter().flatten() {
        text.push_str(&format!("  {:<10}  {count}\n", escape(outcome)));
    }
    for refusal in daemon.refusals.iter().flatten() {
        let seconds = i64::try_from(refusal.time_usec / 1_000_000).unwrap_or(i64::MAX);
        let code = refusal.code.as_deref().map(|code| format!(" [{}]", escape(code))).unwrap_or_default();
        let (verdict, image) = (escape(&refusal.verdict), escape(&refusal.reference));
        text.push_str(&format!("  {verdict:<10}  {} {image}{code}\n", Timestamp(seconds)));
    }
}

fn push_trusted_root(text: &mut String, report: &TrustReport) {
    text.push_str(&format!("trusted root of this host: {}\n", escape(&report.source)));
    let time = match (&report.current_until, report.days_since) {
        (None, _) => "unknown".to_owned(),
        (Some(time), None) => format!("{time}, which is still to come"),
        (Some(time), Some(days)) => format!("{time}, {days} days ago; stale after {STALE_AFTER_DAYS}"),
    };
    text.push_str(&format!("  current until         {time}{}\n", if report.stale { ": STALE" } else { "" }));
    if let Some(TufReport { targets, timestamp, root }) = &report.tuf {
        let version = |name, version: &Option<u64>| match version {
            Some(version) => format!(", {name} {version}"),
            None => String::new(),
        };
        let (timestamp, root) = (version("timestamp", timestamp), version("root", root));
        text.push_str(&format!("  TUF                   targets {targets}{timestamp}{root}\n"));
    }
}

/// What the policy requires of an image.
#[must_use]
pub(super) fn explanation(report: &ExplainReport) -> Exit {
    let mut text = format!("{}\n", escape(&report.reference));
    let name = match &report.transport {
        Some(transport) => format!("scope {} \"{}\"", escape(transport), escape(&report.scope)),
        None => escape(&report.scope),
    };
    let (line, column) = (report.line, report.column);
    text.push_str(&format!("  policy    {}:{line}:{column}, {name}\n", escape(&report.policy_path)));
    text.push_str(&format!("            {}\n", escape(&report.policy_digest)));
    let chain: Vec<String> = report.scope_chain.iter().map(|s| format!("\"{}\"", escape(s))).collect();
    text.push_str(&format!("  tried     {}\n", chain.join(", ")));
    text.push_str(&format!("  outcome   {}\n", report.outcome));
    for requirement in &report.requirements {
        text.push_str(&format!("  {}: {}\n", requirement.kind, escape(&requirement.description)));
        if let Some(identity) = &requirement.signed_identity {
            text.push_str(&format!("    signed identity {}\n", escape(identity)));
        }
    }
    // An image that is where its name says needs no other name.
    let elsewhere = |e: &EndpointReport| e.reference != format!("docker://{}", report.normalized_reference);
    let named = report.endpoints.len() > 1 || report.endpoints.iter().any(|e| elsewhere(e) || e.insecure);
    for endpoint in &report.endpoints {
        push_endpoint(&mut text, endpoint, named);
    }
    for warning in &report.warnings {
        text.push_str(&format!("warning: {}\n", escape(warning)));
    }
    out(&text)
}

fn push_endpoint(text: &mut String, endpoint: &EndpointReport, named: bool) {
    let origin = |origin: &Option<String>| match origin {
        Some(origin) => escape(origin),
        None => "built in".to_owned(),
    };
    if named {
        let what = if endpoint.mirror { "mirror   " } else { "registry " };
        let how = if endpoint.insecure { "  (insecure: it need not prove who it is)" } else { "" };
        text.push_str(&format!("  {what} {}{how}\n", escape(&endpoint.reference)));
    }
    if let Some(blocked) = &endpoint.blocked {
        text.push_str(&format!("  not asked: blocked by {}\n", escape(blocked)));
    }
    text.push_str(&format!(
        "  lookaside {}  ({})\n",
        escape(&endpoint.lookaside),
        origin(&endpoint.lookaside_origin)
    ));
    let attachments = if endpoint.use_sigstore_attachments { "looked for" } else { "not looked for" };
    text.push_str(&format!("  attachments are {attachments}  ({})\n", origin(&endpoint.attachments_origin)));
}

/// What is attached to an image. If nothing could be looked at, that goes to standard error.
#[must_use]
pub(super) fn inspection(report: &InspectReport) -> Exit {
    let reference = escape(&report.reference);
    if let Some(message) = &report.message {
        let code = escape(report.code.as_deref().unwrap_or_default());
        failure(&format!("{reference}: not inspected: {message} [{code}]"));
        report.help.iter().for_each(|text| help(text));
        return Exit::Success;
    }
    let (all, good) = (report.signatures().count(), report.signatures().filter(|s| s.verified).count());
    let mut text = format!("{reference}: {good} of {all} signatures and attestations verified; no verdict\n");
    if let Some(source) = &report.source {
        text.push_str(&format!("  from      {}\n", escape(source)));
    }
    for manifest in &report.manifests {
        let digest = manifest.digest.as_deref().unwrap_or("none: it can be read in more than one way");
        let what = if manifest.subject == "instance" { "instance" } else { "manifest" };
        text.push_str(&format!("  {what}  {}  ({} bytes)\n", escape(digest), manifest.size));
        text.push_str(&format!("    as sent, untrusted: type {}\n", escape(&quoted(&manifest.media_type))));
        manifest.places.iter().for_each(|place| push_place(&mut text, place));
    }
    if let Some(failure) = &report.failure {
        text.push_str("  instance\n");
        push_failure(&mut text, "    ", failure);
    }
    for proposal in &report.proposals {
        text.push_str(&format!("  proposal  {}\n", escape_json(proposal)));
    }
    for warning in &report.warnings {
        text.push_str(&format!("warning: {}\n", escape(warning)));
    }
    if !report.proposals.is_empty() {
        text.push_str("note: a proposal trusts whoever made that signature; one that names a repository trusts all its workflows and branches: that is for you to decide, and \"refs\" and \"workflows\" narrow it\n");
    }
    text.push_str("note: \"verified\" says that the signature is good and about this manifest, whoever made it; no policy was asked, and \"untrusted\" marks what anybody may have written\n");
    if !report.complete {
        text.push_str("note: not everything could be asked; there may be more\n");
    }
    out(&text)
}

fn push_place(text: &mut String, place: &PlaceReport) {
    let nothing = if place.items.is_empty() && place.failures.is_empty() { ": nothing" } else { "" };
    text.push_str(&format!("  {} {}{nothing}\n", place.kind, escape(&place.location)));
    for item in &place.items {
        push_item(text, item);
    }
    for failure in &place.failures {
        push_failure(text, "    ", failure);
    }
}

fn push_failure(text: &mut String, indent: &str, failure: &FailureReport) {
    let FailureReport { code, message, help } = failure;
    text.push_str(&format!("{indent}NOT ALL ASKED: {} [{}]\n", escape(message), escape(code)));
    text.push_str(&format!("{indent}help: {}\n", escape(help)));
}

fn push_item(text: &mut String, item: &ItemReport) {
    let described = [
        item.artifact_type.as_ref().map(|kind| format!("artifact type {}", escape(&quoted(kind)))),
        item.media_type.as_ref().map(|kind| format!("media type {}", escape(&quoted(kind)))),
        item.predicate_type.as_ref().map(|kind| format!("predicate type {}", escape(&quoted(kind)))),
        item.digest.as_deref().map(escape),
        item.size.map(|size| format!("{size} bytes")),
    ];
    let described: Vec<String> = described.into_iter().flatten().collect();
    let is_plain = described.is_empty();
    if !is_plain {
        text.push_str(&format!("    as listed, untrusted: {}\n", described.join(", ")));
    }
    let indent = if is_plain { "    " } else { "      " };
    if let Some(failure) = &item.failure {
        push_failure(text, indent, failure);
    } else if !item.opened {
        text.push_str(&format!("{indent}not opened: no signature, as its place says\n"));
    } else if item.signatures.is_empty() {
        text.push_str(&format!("{indent}holds no signature on this manifest\n"));
    }
    for signature in &item.signatures {
        push_finding(text, indent, signature);
    }
}

fn push_finding(text: &mut String, indent: &str, finding: &FindingReport) {
    let what = format!("{} {}", finding.kind, escape(&finding.location));
    let reason = finding.message.as_deref().map(|message| {
        format!("{} [{}]", escape(message), escape(finding.code.as_deref().unwrap_or_default()))
    });
    let reason = reason.unwrap_or_default();
    if let Some(proven) = &finding.proven {
        text.push_str(&format!("{indent}verified: {what}\n"));
        let indent = format!("{indent}  ");
        if !reason.is_empty() {
            text.push_str(&format!(
                "{indent}is no signature for a policy, or only if it says so: {reason}\n"
            ));
        }
        finding.help.iter().for_each(|help| text.push_str(&format!("{indent}help: {}\n", escape(help))));
        push_proven(text, &indent, proven);
    }
    if let Some(untrusted) = &finding.untrusted {
        text.push_str(&format!("{indent}NOT VERIFIED: {what}: {reason}\n"));
        finding.help.iter().for_each(|help| text.push_str(&format!("{indent}  help: {}\n", escape(help))));
        push_untrusted(text, &format!("{indent}  untrusted: "), untrusted);
    }
}

fn push_proven(text: &mut String, indent: &str, proven: &ProvenReport) {
    let mut line = |name: &str, value: &str| {
        text.push_str(&format!("{indent}{name} {}\n", escape(value)));
    };
    let SignerReport { kind, id, issuer, subject } = &proven.signer;
    subject.iter().for_each(|subject| line("subject", &quoted(subject)));
    issuer.iter().for_each(|issuer| line("issuer", &quoted(issuer)));
    let key = if kind == "openpgp" { "OpenPGP key" } else { "public key" };
    line(key, id);
    proven.extensions.iter().for_each(|e| line(&format!("{}:", e.name), &quoted(&e.value)));
    line("signed name", &proven.signed_name.as_deref().map_or("none".to_owned(), quoted));
    proven.predicate_type.iter().for_each(|kind| line("predicate type", &quoted(kind)));
    let time = if kind == "openpgp" { "time, as the signer says," } else { "time" };
    proven.times.iter().for_each(|at| line(time, at));
    proven.log_entries.iter().for_each(|entry| line("log", &log_entry(entry)));
}

fn push_untrusted(text: &mut String, indent: &str, untrusted: &HearsayReport) {
    let mut line = |name: &str, value: &str| {
        text.push_str(&format!("{indent}{name} {}\n", escape(value)));
    };
    untrusted.subject.iter().for_each(|subject| line("subject", &quoted(subject)));
    untrusted.issuer.iter().for_each(|issuer| line("issuer", &quoted(issuer)));
    untrusted.keys.iter().for_each(|key| line("OpenPGP key", key));
    untrusted.extensions.iter().for_each(|e| line(&format!("{}:", e.name), &quoted(&e.value)));
    untrusted.names.iter().for_each(|name| line("name", &quoted(name)));
    untrusted.digests.iter().for_each(|digest| line("digest", digest));
    if !untrusted.digests.is_empty() && !untrusted.names_this_manifest {
        line("about", "another manifest than this one");
    }
    untrusted.predicate_type.iter().for_each(|kind| line("predicate type", &quoted(kind)));
    untrusted.times.iter().for_each(|at| line("time", at));
    untrusted.log_entries.iter().for_each(|entry| line("log", &log_entry(entry)));
}

/// A text from outside, so that it can be told where it ends, and cannot be made to begin a line of its own.
fn quoted(text: &str) -> String {
    let is_space = |c: char| c.is_whitespace() && !c.is_control();
    let words: Vec<&str> = text.split(is_space).filter(|word| !word.is_empty()).collect();
    format!("\"{}\"", words.join(" "))
}

fn log_entry(entry: &LogEntryReport) -> String {
    let index = entry.index.map(|index| format!(", entry {index}")).unwrap_or_default();
    format!("{}{index}", entry.log)
}

/// Widest column of names.
const COLUMN: usize = 80;

/// Most scopes of a policy that `status` lists; `--json` has all.
const SCOPES: usize = 20;

/// Most faults of a policy that are printed besides the first; `--json` has all.
const PROBLEMS: usize = 19;
