//! [`Pattern`] and [`Glob`]: values of which the policy gives only the form.

use std::fmt;

use regex::{Regex, RegexBuilder};

/// A regular expression that a whole value must match (design decision 3.3); matching takes linear time.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    regex: Regex,
}

/// Why a text is no [`Pattern`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It compiles to more than [`COMPILED_BYTES`].
    #[error("it is too large when compiled: {} KiB are the most", COMPILED_BYTES >> 10)]
    Large,
    /// It is longer than [`TEXT_BYTES`].
    #[error("it is longer than {TEXT_BYTES} bytes")]
    Long,
    /// It is no regular expression.
    #[error("{0}")]
    Syntax(String),
}

impl Pattern {
    /// Compiles a pattern, anchored at both ends of the value whatever stands in it.
    pub fn new(text: &str) -> Result<Self, Error> {
        if text.len() > TEXT_BYTES {
            return Err(Error::Long);
        }
        // By itself first: `a)|(?:b` would escape from the group below.
        compile(text)?;
        let regex = compile(&format!(r"\A(?:{text})\z"))?;
        Ok(Self { text: text.to_owned(), regex })
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the whole of `value` matches.
    pub fn matches(&self, value: &str) -> bool {
        self.regex.is_match(value)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

fn compile(text: &str) -> Result<Regex, Error> {
    let mut builder = RegexBuilder::new(text);
    builder.size_limit(COMPILED_BYTES).dfa_size_limit(CACHE_BYTES);
    builder.build().map_err(|error| {
        if matches!(error, regex::Error::CompiledTooBig(_)) {
            return Error::Large;
        }
        // The library draws a picture over several lines; its last line is the sentence.
        let text = error.to_string();
        Error::Syntax(text.rsplit("error: ").next().unwrap_or_default().trim().to_owned())
    })
}

/// A path in full, or everything below a directory: `*` counts only as the whole of the last segment (T-13).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Glob {
    /// `directory/*`, kept with its slash.
    Below(String),
    /// The path itself.
    Exact(String),
}

impl Glob {
    /// Reads a path without empty, `.` and `..` segments.
    pub fn parse(text: &str) -> Option<Self> {
        let sound = |path: &str| path.split('/').all(|s| !matches!(s, "" | "." | "..") && !s.contains('*'));
        match text.strip_suffix("/*") {
            Some(directory) => sound(directory).then(|| Self::Below(format!("{directory}/"))),
            None => sound(text).then(|| Self::Exact(text.to_owned())),
        }
    }

    /// Whether `path` is it, or is below it.
    pub fn matches(&self, path: &str) -> bool {
        self.is_between("", path, "")
    }

    /// Whether `value` is `before`, a path that matches, and `after`.
    ///
    /// The value is never split, so that nothing in it can move the boundaries.
    pub fn is_between(&self, before: &str, value: &str, after: &str) -> bool {
        let Some(path) = value.strip_prefix(before).and_then(|rest| rest.strip_suffix(after)) else {
            return false;
        };
        match self {
            Self::Below(directory) => {
                path.strip_prefix(directory.as_str()).is_some_and(|rest| !rest.is_empty())
            }
            Self::Exact(wanted) => path == wanted,
        }
    }

    /// Whether only paths that begin with `directory` match, because the glob itself says so.
    pub fn starts_with(&self, directory: &str) -> bool {
        match self {
            Self::Below(path) | Self::Exact(path) => path.starts_with(directory),
        }
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Below(directory) => write!(f, "{directory}*"),
            Self::Exact(path) => f.write_str(path),
        }
    }
}

/// Longest pattern: 1 KiB, several times what the address of a workflow takes.
pub const TEXT_BYTES: usize = 1 << 10;

/// Largest compiled pattern: 64 KiB. An address with a few wildcards takes about ten.
pub const COMPILED_BYTES: usize = 64 << 10;

/// Most memory that a search may keep between steps. With less it takes longer, and still linear time.
const CACHE_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// The bypasses that unanchored or naively anchored expressions have.
    #[test]
    fn patterns_match_whole_values_only() {
        let workflow = r"https://github\.com/acme/os/\.github/workflows/release\.yml@refs/tags/.*";
        let good = "https://github.com/acme/os/.github/workflows/release.yml@refs/tags/v1";
        assert!(Pattern::new(workflow).unwrap().matches(good));
        for bad in [
            "https://github.com/evil/os/.github/workflows/release.yml@refs/tags/v1",
            "https://evil.example/https://github.com/acme/os/.github/workflows/release.yml@refs/tags/v1",
            "https://githubXcom/acme/os/.github/workflows/release.yml@refs/tags/v1",
            "https://github.com/acme/os/.github/workflows/release.yml@refs/heads/refs/tags/v1",
            "https://github.com/acme/os/.github/workflows/release.yml@refs/tags/v1\n",
            "\nhttps://github.com/acme/os/.github/workflows/release.yml@refs/tags/v1",
            "x\nhttps://github.com/acme/os/.github/workflows/release.yml@refs/tags/v1\nx",
            "",
        ] {
            assert!(!Pattern::new(workflow).unwrap().matches(bad), "{bad:?}");
        }
        for (pattern, value, wanted) in [
            ("a|b", "a", true),
            ("a|b", "ab", false),
            ("a|b", "xb", false),
            ("^a$", "a", true),
            ("(?m)^a$", "a\nb", false),
            ("(?m)^a$", "b\na", false),
            ("(?s)a.*", "a\nb", true),
            ("a.*", "a\nb", false),
            ("(?i)a", "A", true),
            ("a", "A", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(Pattern::new(pattern).unwrap().matches(value), wanted, "{pattern:?} {value:?}");
        }
    }

    #[test]
    fn what_escapes_its_group_or_is_too_large_is_no_pattern() {
        for pattern in
            ["a)|(?:b", "a)|(b", "(", "[", "*", "(?x)a #", r"\", "(?P<n>a)(?P<n>b)", r"(a)\1", "(?=a)"]
        {
            assert!(matches!(Pattern::new(pattern), Err(Error::Syntax(_))), "{pattern}");
        }
        assert_eq!(Pattern::new(&"a".repeat(TEXT_BYTES.saturating_add(1))), Err(Error::Long));
        assert!(Pattern::new(&"a".repeat(TEXT_BYTES)).is_ok());
        for pattern in [r"\w{1000}", "((a{100}){100}){100}", "(?:a?){10000}"] {
            assert_eq!(Pattern::new(pattern), Err(Error::Large), "{pattern}");
        }
    }

    /// Expressions that take exponential time where matching goes back: here each step is taken once.
    #[test]
    fn catastrophic_patterns_take_no_time() {
        let value = format!("{}!", "a".repeat(4 << 10));
        for pattern in ["(a+)+", "(a|a)*", "(a*)*b", "(.*)*(.*)*(.*)*x", "(a?){100}a{100}"] {
            let started = std::time::Instant::now();
            assert!(!Pattern::new(pattern).unwrap().matches(&value), "{pattern}");
            assert!(started.elapsed() < std::time::Duration::from_secs(5), "{pattern}");
        }
    }

    // T-13.
    #[test]
    fn a_star_is_a_whole_last_segment() {
        for text in [
            "", "*", "a*", "a/*b", "a/b*", "*/a", "a/*/b", "a/**", "/a", "a/", "a//b", "a/../b", "./a", "//*",
        ] {
            assert_eq!(Glob::parse(text), None, "{text}");
        }
        for (glob, path, wanted) in [
            ("refs/tags/*", "refs/tags/v1", true),
            ("refs/tags/*", "refs/tags/v1/rc", true),
            ("refs/tags/*", "refs/tags/", false),
            ("refs/tags/*", "refs/tags", false),
            ("refs/tags/*", "refs/tagsx/v1", false),
            ("refs/heads/main", "refs/heads/main", true),
            ("refs/heads/main", "refs/heads/main2", false),
            ("refs/heads/main", "refs/heads/Main", false),
            ("refs/heads/main", "xrefs/heads/main", false),
        ] {
            let glob = Glob::parse(glob).unwrap();
            assert_eq!(glob.matches(path), wanted, "{glob} {path}");
        }
        let glob = Glob::parse("w/*").unwrap();
        assert!(glob.is_between("r/", "r/w/a.yml@m", "@m"));
        assert!(!glob.is_between("r/w/a", "r/w/a", "w/a"), "the ends may not overlap");
    }
}
