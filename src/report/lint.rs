//! [`LintReport`]: what is wrong with policies, as data, and as SARIF and GitHub have it.

use std::collections::HashMap;
use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use crate::diagnostic::{Code, Position, Positions, Severity, Span, escape};
use crate::lint::{FAULTS, Finding, Place, RULES};

use super::SCHEMA;

/// A policy that was looked at.
#[derive(Clone, Debug)]
pub struct Linted {
    /// Its name for messages.
    pub name: String,
    /// Its text.
    pub bytes: Vec<u8>,
    /// What there is to say about it.
    pub findings: Vec<Finding>,
}

/// What is wrong with policies.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct LintReport {
    /// [`SCHEMA`]
    pub schema: u32,
    /// The policies that were looked at.
    pub files: Vec<String>,
    /// What there is to say about them.
    pub findings: Vec<LintFinding>,
    /// The policies that could not be read.
    pub failures: Vec<LintFailure>,
    /// How many findings are errors.
    pub errors: usize,
    /// How many are warnings.
    pub warnings: usize,
    /// How many are notes.
    pub notes: usize,
}

/// One thing to say.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct LintFinding {
    /// Its code.
    pub code: &'static str,
    /// `error`, `warning` or `note`.
    pub severity: &'static str,
    /// Where it is.
    #[serde(flatten)]
    pub place: LintPlace,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub help: Option<String>,
    /// Another place that has to do with it.
    pub related: Option<LintRelated>,
    #[serde(skip)]
    source: Option<Source>,
}

/// A place in a file; without a line it is the file as a whole.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct LintPlace {
    /// The file.
    pub file: String,
    /// Line, from 1.
    pub line: Option<usize>,
    /// Column in characters, from 1.
    pub column: Option<usize>,
    /// Line of the first character behind it.
    pub end_line: Option<usize>,
    /// Column of that character.
    pub end_column: Option<usize>,
}

/// A second place.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct LintRelated {
    /// Where it is.
    #[serde(flatten)]
    pub place: LintPlace,
    /// What is there.
    pub message: String,
}

/// A policy that could not be read.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct LintFailure {
    /// The file.
    pub file: String,
    /// Its code.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub help: String,
}

/// A part of a line, escaped, and what of it is meant, counted in characters.
#[derive(Clone, Debug, PartialEq)]
struct Source {
    text: String,
    start: usize,
    length: usize,
}

impl LintReport {
    /// The report on policies, and on those that could not be read.
    pub fn of(linted: &[Linted], failures: Vec<LintFailure>) -> Self {
        let findings: Vec<LintFinding> = linted.iter().flat_map(report).collect();
        let count = |severity| findings.iter().filter(|finding| finding.severity == name(severity)).count();
        Self {
            schema: SCHEMA,
            files: linted.iter().map(|linted| linted.name.clone()).collect(),
            errors: count(Severity::Error),
            warnings: count(Severity::Warning),
            notes: count(Severity::Note),
            findings,
            failures,
        }
    }

    /// For people: the line of each finding with what is meant underlined, and a line of numbers at the end.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            let LintFinding { code, severity, place, message, help, related, source } = finding;
            text.push_str(&format!("{}: {severity}: {} [{code}]\n", place.words(), escape(message)));
            if let Some(Source { text: line, start, length }) = source {
                let number = place.line.unwrap_or_default().to_string();
                let gap = " ".repeat(number.len());
                text.push_str(&format!("  {number} | {line}\n"));
                text.push_str(&format!("  {gap} | {}{}\n", " ".repeat(*start), "^".repeat(*length)));
            }
            if let Some(related) = related {
                text.push_str(&format!("  see: {}: {}\n", related.place.words(), escape(&related.message)));
            }
            if let Some(help) = help {
                text.push_str(&format!("  help: {}\n", escape(help)));
            }
        }
        let number = |count: usize, what| match count {
            1 => format!("1 {what}"),
            _ => format!("{count} {what}s"),
        };
        text.push_str(&format!(
            "{}, {}, {}\n",
            number(self.errors, "error"),
            number(self.warnings, "warning"),
            number(self.notes, "note")
        ));
        text
    }

    /// As workflow commands of GitHub Actions; docs.github.com, "Workflow commands for GitHub Actions".
    pub fn github(&self) -> String {
        let mut text = String::new();
        for LintFailure { file, code, message, .. } in &self.failures {
            text.push_str(&format!("::error file={},title={code}::{}\n", property(file), data(message)));
        }
        for LintFinding { code, severity, place, message, help, .. } in &self.findings {
            let command = match *severity {
                "note" => "notice",
                other => other,
            };
            let mut properties = vec![format!("file={}", property(&place.file))];
            let numbers = [
                ("line", place.line),
                ("endLine", place.end_line),
                ("col", place.column),
                ("endColumn", place.end_column),
            ];
            // A column means something within one line only.
            let is_one_line = place.line == place.end_line;
            let shown = numbers.into_iter().filter(|(name, _)| is_one_line || name.ends_with("ine"));
            properties.extend(shown.filter_map(|(name, number)| Some(format!("{name}={}", number?))));
            properties.push(format!("title={}", property(code)));
            let help = help.as_ref().map(|help| format!("\nhelp: {help}")).unwrap_or_default();
            text.push_str(&format!(
                "::{command} {}::{}\n",
                properties.join(","),
                data(&format!("{message}{help}"))
            ));
        }
        text
    }

    /// As SARIF 2.1.0, OASIS Standard.
    pub fn sarif(&self) -> Value {
        let level = |severity| name(severity);
        let faults = FAULTS.iter().map(|(code, summary)| (*code, Severity::Error, *summary));
        let rules = RULES.iter().map(|rule| (rule.code, rule.severity, rule.summary));
        let omitted = (Code::FindingsOmitted, Severity::Error, "there is more to say than is said");
        let rules: Vec<(&str, Severity, &str)> = faults
            .chain(rules)
            .chain([omitted])
            .map(|(code, severity, summary)| (code.as_str(), severity, summary))
            .collect();
        let index: HashMap<&str, usize> =
            rules.iter().enumerate().map(|(n, (code, ..))| (*code, n)).collect();
        let described: Vec<Value> = rules
            .iter()
            .map(|(code, severity, summary)| {
                json!({
                    "id": code,
                    "shortDescription": { "text": summary },
                    "defaultConfiguration": { "level": level(*severity) },
                })
            })
            .collect();
        let results: Vec<Value> = self
            .findings
            .iter()
            .map(|finding| {
                let help = finding.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
                let mut result = json!({
                    "ruleId": finding.code,
                    "level": finding.severity,
                    "message": { "text": format!("{}{help}", finding.message) },
                    "locations": [{ "physicalLocation": finding.place.sarif() }],
                });
                let Some(members) = result.as_object_mut() else { return result };
                if let Some(index) = index.get(finding.code) {
                    members.insert("ruleIndex".to_owned(), json!(index));
                }
                if let Some(LintRelated { place, message }) = &finding.related {
                    let related =
                        json!([{ "physicalLocation": place.sarif(), "message": { "text": message } }]);
                    members.insert("relatedLocations".to_owned(), related);
                }
                result
            })
            .collect();
        let failures: Vec<Value> = self
            .failures
            .iter()
            .map(|failure| json!({ "level": "error", "message": { "text": failure.message } }))
            .collect();
        json!({
            "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
            "version": "2.1.0",
            "runs": [{
                "tool": { "driver": {
                    "name": "vouchd policy-lint",
                    "version": env!("CARGO_PKG_VERSION"),
                    "rules": described,
                } },
                "columnKind": "unicodeCodePoints",
                "invocations": [{
                    "executionSuccessful": failures.is_empty(),
                    "toolExecutionNotifications": failures,
                }],
                "results": results,
            }],
        })
    }
}

/// The findings on one policy; all places in it are found in one pass.
fn report(linted: &Linted) -> Vec<LintFinding> {
    let mut offsets = Vec::new();
    for finding in &linted.findings {
        for place in [Some(&finding.place), finding.related.as_ref().map(|related| &related.place)] {
            if let Some(Place::Policy(Span { start, end })) = place {
                offsets.extend([*start, *end]);
            }
        }
    }
    let positions = Positions::of(&linted.bytes, offsets);
    let place = |place: &Place| match place {
        Place::Policy(span) => LintPlace::of(&linted.name, positions.at(span.start), positions.at(span.end)),
        Place::File { path, at } => LintPlace::of(&path.to_string_lossy(), *at, None),
    };
    let one = |finding: &Finding| LintFinding {
        code: finding.code.as_str(),
        severity: name(finding.severity),
        place: place(&finding.place),
        message: finding.message.clone(),
        help: finding.help.clone(),
        related: finding
            .related
            .as_ref()
            .map(|related| LintRelated { place: place(&related.place), message: related.message.clone() }),
        source: match &finding.place {
            Place::Policy(span) => source(&linted.bytes, *span),
            Place::File { .. } => None,
        },
    };
    linted.findings.iter().map(one).collect()
}

fn name(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Note => "note",
        Severity::Warning => "warning",
    }
}

impl LintPlace {
    fn of(file: &str, start: Option<Position>, end: Option<Position>) -> Self {
        Self {
            file: file.to_owned(),
            line: start.map(|at| at.line),
            column: start.map(|at| at.column),
            end_line: end.map(|at| at.line),
            end_column: end.map(|at| at.column),
        }
    }

    /// `file:line:column`
    fn words(&self) -> String {
        let file = escape(&self.file);
        match (self.line, self.column) {
            (Some(line), Some(column)) => format!("{file}:{line}:{column}"),
            (_, None) | (None, _) => file,
        }
    }

    fn sarif(&self) -> Value {
        let mut location = json!({ "artifactLocation": { "uri": uri(&self.file) } });
        let numbers = [
            ("startLine", self.line),
            ("startColumn", self.column),
            ("endLine", self.end_line),
            ("endColumn", self.end_column),
        ];
        let region: serde_json::Map<String, Value> = numbers
            .into_iter()
            .filter_map(|(name, number)| Some((name.to_owned(), json!(number?))))
            .collect();
        if let (false, Some(members)) = (region.is_empty(), location.as_object_mut()) {
            members.insert("region".to_owned(), Value::Object(region));
        }
        location
    }
}

/// The surroundings of a place within its line, at most some 140 bytes of it.
fn source(document: &[u8], span: Span) -> Option<Source> {
    let is_inside = |at: usize| document.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    let least = span.start.saturating_sub(BEFORE);
    let before = document.get(least..span.start)?;
    let (mut from, is_cut) = match before.iter().rposition(|byte| *byte == b'\n') {
        Some(at) => (least.saturating_add(at).saturating_add(1), false),
        None => (least, least > 0),
    };
    while is_inside(from) && from < span.start {
        from = from.saturating_add(1);
    }
    let most = span.start.saturating_add(AFTER).min(document.len());
    let after = document.get(span.start..most)?;
    let (mut to, is_short) = match after.iter().position(|byte| *byte == b'\n') {
        Some(at) => (span.start.saturating_add(at), false),
        None => (most, most < document.len()),
    };
    while is_inside(to) && to > span.start {
        to = to.saturating_sub(1);
    }
    let shown = |from: usize, to: usize| {
        let text = String::from_utf8_lossy(document.get(from..to).unwrap_or_default());
        escape(&text.trim_end_matches('\r').replace('\t', " "))
    };
    let end = span.end.clamp(span.start, to);
    let (before, marked, after) = (shown(from, span.start), shown(span.start, end), shown(end, to));
    let (lead, tail) = (if is_cut { "..." } else { "" }, if is_short { "..." } else { "" });
    Some(Source {
        start: lead.len().saturating_add(before.chars().count()),
        length: marked.chars().count().max(1),
        text: format!("{lead}{before}{marked}{after}{tail}"),
    })
}

/// A path as a URI reference; RFC 3986, section 3.3.
fn uri(file: &str) -> String {
    let mut out = String::from(if Path::new(file).is_absolute() { "file://" } else { "" });
    for byte in file.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Text behind a workflow command.
fn data(text: &str) -> String {
    // Whatever else could act on a terminal or begin a line.
    let lines: Vec<String> = text.replace('%', "%25").split('\n').map(escape).collect();
    lines.join("%0A")
}

/// A property of a workflow command.
fn property(text: &str) -> String {
    escape(&text.replace('%', "%25")).replace(':', "%3A").replace(',', "%2C")
}

/// How much of a line is shown in front of a place.
const BEFORE: usize = 60;

/// How much of it is shown from there on.
const AFTER: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_shown_in_part() {
        let long = format!("{}\"é\"{}", "a".repeat(100), "b".repeat(100));
        for (document, start, end, text, mark) in [
            ("ab\ncd\n", 3, 4, "cd".to_owned(), (0, 1)),
            ("ab\ncd\n", 1, 5, "ab".to_owned(), (1, 1)),
            ("a\tb\u{1}c", 2, 5, "a b\\u{1}c".to_owned(), (2, 7)),
            ("", 0, 0, String::new(), (0, 1)),
            ("x", 1, 1, "x".to_owned(), (1, 1)),
            (&long, 100, 104, format!("...{}\"é\"{}...", "a".repeat(60), "b".repeat(76)), (63, 3)),
        ] {
            let found = source(document.as_bytes(), Span { start, end }).unwrap();
            assert_eq!((found.text, (found.start, found.length)), (text, mark), "{document:?}");
        }
    }

    #[test]
    fn nothing_ends_a_workflow_command_early() {
        assert_eq!(data("100%\n::error::x\r\u{1b}[0m"), "100%25%0A::error::x\\u{d}\\u{1b}[0m");
        assert_eq!(property("a,b:c%\n"), "a%2Cb%3Ac%25\\u{a}");
        assert_eq!(uri("/a b/ä%.json"), "file:///a%20b/%C3%A4%25.json");
        assert_eq!(uri("a:b.json"), "a%3Ab.json");
    }
}
