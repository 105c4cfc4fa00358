//! [`Text`] and [`Draft`]: a policy as far as it can be understood, every problem told.

use std::collections::HashMap;

use crate::diagnostic::{Code, Diagnostic, Severity, Span};
use crate::json::{self, Error, Limits, Member, Value};
use crate::policy::parse::LIMITS;
use crate::policy::{Policy, Requirement};

/// The text of a policy, with what is no JSON in it taken out where that can be done without a guess.
///
/// It has the length of the document, so that every place in it is one there. Only advice comes of it: a policy that
/// had to be mended is never used.
#[derive(Clone, Debug)]
pub struct Text {
    mended: Vec<u8>,
    faults: Vec<Diagnostic>,
    limits: Limits,
}

impl Text {
    /// Mends a document up to [`MENDS`] times.
    pub fn read(document: &[u8]) -> Self {
        Self::read_within(document, LIMITS.values)
    }

    /// As [`Text::read`] for a document that anybody may have written, with at most this number of JSON values.
    pub fn read_within(document: &[u8], values: usize) -> Self {
        let limits = Limits { values, ..LIMITS };
        let mut text = Self { mended: document.to_vec(), faults: Vec::new(), limits };
        while let Err(error) = json::parse(&text.mended, limits) {
            let mend = Mend::of(&text.mended, &error);
            let (span, help) = match &mend {
                Some(mend) => (mend.fault, Some(mend.help.to_owned())),
                None => (error.span, None),
            };
            text.faults.push(Diagnostic {
                code: Code::InvalidJson,
                severity: Severity::Error,
                span,
                message: format!("the policy is not JSON: {}", error.reason),
                help,
            });
            // Each mending reads the document once more.
            let too_often = text.faults.len().saturating_mul(document.len()) > READ_BYTES;
            match mend.filter(|_| text.faults.len() < MENDS && !too_often) {
                Some(mend) => mend.apply(&mut text.mended),
                None => break,
            }
        }
        text
    }

    /// The document as JSON, if it could be mended.
    pub fn tree(&self) -> Option<Value<'_>> {
        json::parse(&self.mended, self.limits).ok()
    }
}

/// One way to go on behind a fault.
struct Mend {
    /// What to underline.
    fault: Span,
    help: &'static str,
    /// What is overwritten, and with what.
    range: Span,
    with: u8,
}

impl Mend {
    fn of(text: &[u8], error: &Error) -> Option<Self> {
        let at = error.span.start;
        let rest = text.get(at..)?;
        let before = text.get(..at)?;
        let blank = |fault: Span, help| Self { fault, help, range: fault, with: b' ' };
        if at == 0 && rest.starts_with(b"\xef\xbb\xbf") {
            return Some(blank(Span { start: 0, end: 3 }, "save the file without a byte order mark"));
        }
        if let Some(length) = comment(rest) {
            let fault = Span { start: at, end: at.saturating_add(length) };
            return Some(blank(fault, "remove the comment: JSON has none"));
        }
        let last = before.iter().rposition(|byte| !byte.is_ascii_whitespace());
        let is_last = |byte| last.and_then(|last| text.get(last)) == Some(&byte);
        if matches!(rest.first(), Some(b'}' | b']')) && is_last(b',') {
            let start = last?;
            return Some(blank(Span { start, end: start.saturating_add(1) }, "remove the comma"));
        }
        if error.reason.starts_with("there is more after the end") {
            return Some(blank(Span { start: at, end: text.len() }, "remove it"));
        }
        // Between two members there must be room for the comma.
        let gap = last?.saturating_add(1);
        if error.reason.starts_with("\",\" or")
            && matches!(rest.first(), Some(b'"' | b'{' | b'['))
            && gap < at
        {
            let range = Span { start: gap, end: gap.saturating_add(1) };
            return Some(Self { fault: error.span, help: "put a comma in front of it", range, with: b',' });
        }
        None
    }

    fn apply(&self, text: &mut [u8]) {
        if let Some(range) = text.get_mut(self.range.start..self.range.end) {
            // Line ends stay, though nothing depends on it.
            range
                .iter_mut()
                .filter(|byte| **byte != b'\n' || self.with == b',')
                .for_each(|byte| *byte = self.with);
        }
    }
}

/// The length of the comment that `text` begins with, without the end of its line.
fn comment(text: &[u8]) -> Option<usize> {
    if text.starts_with(b"//") {
        return Some(text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len()));
    }
    let inside = text.strip_prefix(b"/*")?;
    inside.windows(2).position(|pair| pair == b"*/").map(|at| at.saturating_add(4))
}

/// A policy as somebody wrote it: what could not be read is left out.
#[derive(Debug)]
pub struct Draft<'v> {
    /// Why it cannot be used.
    pub problems: Vec<Diagnostic>,
    /// Whether there are more problems than [`PROBLEMS`].
    pub are_more: bool,
    /// `default` first, then the scopes in the order of the document.
    pub scopes: Vec<Scope<'v>>,
    /// The transports and where their names stand.
    pub transports: Vec<(&'v str, Span)>,
    by_name: HashMap<(&'v str, &'v str), usize>,
}

/// `default` or a scope.
#[derive(Debug)]
pub struct Scope<'v> {
    /// None for `default`.
    pub transport: Option<&'v str>,
    /// The name, empty for `default` and for all of a transport.
    pub name: &'v str,
    /// Where the name stands.
    pub span: Span,
    /// The list of requirements.
    pub requirements: Vec<Written<'v>>,
}

/// A requirement as it is written.
#[derive(Debug)]
pub struct Written<'v> {
    /// The object.
    pub value: &'v Value<'v>,
    /// What it means; none if it is faulty.
    pub meaning: Option<Requirement>,
}

impl<'v> Draft<'v> {
    /// What there is in `tree`, which is that of `text`.
    pub fn of(text: &Text, tree: Option<&'v Value<'v>>) -> Self {
        let mut problems = text.faults.clone();
        if let Some(Err(more)) = tree.map(|tree| Policy::of_json(tree, PROBLEMS.saturating_add(1))) {
            problems.extend(more.iter().cloned());
        }
        let are_more = problems.len() > PROBLEMS;
        problems.truncate(PROBLEMS);
        let mut draft =
            Self { are_more, problems, scopes: Vec::new(), transports: Vec::new(), by_name: HashMap::new() };
        let Some(tree) = tree else { return draft };
        if let Some(default) = member(tree, "default") {
            draft.add(None, "", default.key_span, &default.value);
        }
        let transports = member(tree, "transports").and_then(|member| member.value.members());
        for transport in transports.unwrap_or_default() {
            draft.transports.push((&transport.key, transport.key_span));
            for scope in transport.value.members().unwrap_or_default() {
                draft.add(Some(&transport.key), &scope.key, scope.key_span, &scope.value);
            }
        }
        draft
    }

    fn add(&mut self, transport: Option<&'v str>, name: &'v str, span: Span, list: &'v Value<'v>) {
        let requirements = list.elements().unwrap_or_default().iter();
        let requirements =
            requirements.map(|value| Written { value, meaning: Requirement::of_json(value) }).collect();
        if let Some(transport) = transport {
            self.by_name.entry((transport, name)).or_insert(self.scopes.len());
        }
        self.scopes.push(Scope { transport, name, span, requirements });
    }

    /// The scope of that name.
    pub fn scope(&self, transport: &str, name: &str) -> Option<&Scope<'v>> {
        self.scopes.get(*self.by_name.get(&(transport, name))?)
    }

    /// The scope that would apply to the images of `scope` if it were not there, but for `default` (rule S-20).
    pub fn wider(&self, scope: &Scope<'_>) -> Option<&Scope<'v>> {
        let transport = scope.transport?;
        let names = wider_names(scope.name);
        let named = names.iter().find_map(|name| self.scope(transport, name));
        named.or_else(|| self.scope(transport, "").filter(|_| !scope.name.is_empty()))
    }

    /// Every requirement with its scope.
    pub fn requirements(&self) -> impl Iterator<Item = (&Scope<'v>, &Written<'v>)> {
        self.scopes.iter().flat_map(|scope| scope.requirements.iter().map(move |written| (scope, written)))
    }
}

impl Scope<'_> {
    /// Its requirements, if all could be read and there is one.
    pub fn meanings(&self) -> Option<Vec<&Requirement>> {
        let all: Option<Vec<_>> = self.requirements.iter().map(|written| written.meaning.as_ref()).collect();
        all.filter(|all| !all.is_empty())
    }

    /// In words.
    pub fn words(&self) -> String {
        match self.transport {
            None => "\"default\"".to_owned(),
            Some(transport) => format!("scope {transport} \"{}\"", self.name),
        }
    }
}

impl<'v> Written<'v> {
    /// Where it is best shown: its type, or all of it.
    pub fn span(&self) -> Span {
        member(self.value, "type").map_or(self.value.span, |kind| kind.value.span)
    }

    /// The text of `type`.
    pub fn kind(&self) -> &'v str {
        text(self.value, "type").unwrap_or_default()
    }
}

/// The member of exactly that name; of several the first.
pub fn member<'v>(value: &'v Value<'v>, name: &str) -> Option<&'v Member<'v>> {
    value.members()?.iter().find(|member| member.key == name)
}

/// The string in the member of that name.
pub fn text<'v>(value: &'v Value<'v>, name: &str) -> Option<&'v str> {
    member(value, name)?.value.text()
}

/// The scopes above one of docker or of a path, but the empty one, most specific first (rules S-3, S-4, S-9).
pub(super) fn wider_names(name: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = name;
    if let Some((host, path)) = name.split_once('/') {
        let bare = path.find(['@', ':']).and_then(|at| path.get(..at)).unwrap_or(path);
        if bare.len() != path.len() {
            rest = name.get(..host.len().saturating_add(1).saturating_add(bare.len())).unwrap_or(name);
            names.push(rest.to_owned());
        }
    }
    while let Some((parent, _)) = rest.rsplit_once('/') {
        names.push(parent.to_owned());
        rest = parent;
    }
    let mut host = rest.strip_prefix("*.").unwrap_or(rest).split(':').next().unwrap_or_default();
    while let Some((_, domain)) = host.split_once('.') {
        names.push(format!("*.{domain}"));
        host = domain;
    }
    names
}

/// Most faults of JSON that are mended: 20. Behind more, the text is hardly a policy.
pub const MENDS: usize = 20;

/// Most bytes that are read for it again and again: 64 MiB, twice the largest policy.
const READ_BYTES: usize = 64 << 20;

/// Most problems that are told: 20,000, so that they take some ten megabytes.
pub const PROBLEMS: usize = 20_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::Named;

    fn faults(document: &str) -> Vec<(usize, usize, Option<String>)> {
        let text = Text::read(document.as_bytes());
        assert_eq!(text.mended.len(), document.len());
        text.faults.iter().map(|fault| (fault.span.start, fault.span.end, fault.help.clone())).collect()
    }

    // Rules P-1 and P-2.
    #[test]
    fn what_is_no_json_is_mended_where_there_is_no_doubt() {
        for (document, places) in [
            ("{}", vec![]),
            ("{\"a\":1,}", vec![(6, 7)]),
            ("[1, 2, ]", vec![(5, 6)]),
            ("{// x\n\"a\":1}", vec![(1, 5)]),
            ("{\"a\":1 /* x */}", vec![(7, 14)]),
            ("{\"a\":1\n\"b\":2}", vec![(7, 8)]),
            ("[{} {}]", vec![(4, 5)]),
            ("{} {}", vec![(3, 5)]),
            ("\u{feff}{}", vec![(0, 3)]),
            ("{\"a\":1,}}", vec![(6, 7), (8, 9)]),
        ] {
            let found = faults(document);
            assert!(found.iter().all(|(_, _, help)| help.is_some()), "{document}: {found:?}");
            assert_eq!(found.iter().map(|(a, b, _)| (*a, *b)).collect::<Vec<_>>(), places, "{document}");
            assert!(Text::read(document.as_bytes()).tree().is_some(), "{document}");
        }
        for document in ["", "{", "{\"a\"", "{a:1}", "[1 2]", "{\"a\":1\"b\":2}", "\"\u{1}\"", "/* x"] {
            assert_eq!(faults(document).len(), 1, "{document}");
            assert!(Text::read(document.as_bytes()).tree().is_none(), "{document}");
        }
        assert_eq!(faults(&format!("[{}", "1,/**/".repeat(99))).len(), MENDS);
    }

    // Rules S-3 and S-4.
    #[test]
    fn wider_scopes_are_those_that_an_image_tries() {
        for (name, wanted) in [
            ("a.b.c:5000/n/r:t", &["a.b.c:5000/n/r", "a.b.c:5000/n", "a.b.c:5000", "*.b.c", "*.c"][..]),
            ("a.b/r@sha256:00", &["a.b/r", "a.b", "*.b"]),
            ("localhost", &[]),
            ("localhost:5000", &[]),
            ("*.b.c", &["*.c"]),
            ("", &[]),
        ] {
            assert_eq!(wider_names(name), wanted, "{name}");
        }
        let digest = format!("sha256:{}", "0".repeat(64));
        for image in
            ["busybox", "a.b.c:5000/n/r:t", "localhost/x", "localhost:5000/n/x", "127.0.0.1/a/b/c/d:1"]
        {
            let image = Named::parse(image).unwrap().with_default_tag();
            let pinned = Named::parse(&format!("{}@{digest}", image.name())).unwrap();
            for image in [image, pinned] {
                assert_eq!(wider_names(&image.to_string()), image.namespaces(), "{image}");
            }
        }
    }
}
