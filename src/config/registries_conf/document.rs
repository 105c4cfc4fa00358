//! [`Document`]: one registries.conf, read as the reference reads it, and checked (rule M-3).

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::Error;
use super::short_names::{is_alias_name, parse_alias};
use crate::diagnostic::{Position, Span};
use crate::json::folds;
use crate::reference::{Named, is_domain};

/// What one file sets; what it does not set stays as earlier files have it.
#[derive(Debug)]
pub(super) struct Document {
    /// Of equal prefixes only the first.
    pub(super) registries: Vec<Registry>,
    pub(super) search: Option<Vec<String>>,
    pub(super) credential_helpers: Option<Vec<String>>,
    /// By short name; `None` erases one.
    pub(super) aliases: BTreeMap<String, Option<Named>>,
}

/// One `[[registry]]` table.
#[derive(Clone, Debug)]
pub(super) struct Registry {
    pub(super) prefix: String,
    pub(super) primary: Place,
    pub(super) mirrors: Vec<(Place, Pulls)>,
    pub(super) blocked: bool,
}

/// What takes the place of the prefix.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Empty if the name stays as it is; never so in a mirror.
    pub(super) location: String,
    pub(super) insecure: bool,
    /// Whether requests need a parameter that names the registry behind the place.
    pub(super) namespace_proxy: bool,
}

/// What a mirror is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pulls {
    All,
    ByDigest,
    ByTag,
}

impl Document {
    /// Reads a whole registries.conf.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        let source = Source { path, text };
        let root = source.root()?;
        let root = Table { source, members: root.get_ref(), span: root.span() };
        root.check_version()?;
        if let Some(Text { span, text }) = root.string("short-name-mode")?
            && !matches!(text, "" | "disabled" | "enforcing" | "permissive")
        {
            let detail = format!("\"{text}\" is none of \"enforcing\", \"permissive\" and \"disabled\"");
            return Err(source.fault(&span, detail));
        }
        root.string("additional-layer-store-auth-helper")?;
        let helpers = root.strings("credential-helpers")?;
        Ok(Self {
            registries: root.registries()?,
            search: root.search()?,
            credential_helpers: helpers
                .map(|list| list.into_iter().map(|name| name.text.to_owned()).collect()),
            aliases: root.aliases()?,
        })
    }

    /// Reads a cache of short names, of which nothing but the aliases counts (rule N-2).
    pub(super) fn parse_aliases(path: &Path, text: &str) -> Result<BTreeMap<String, Option<Named>>, Error> {
        let source = Source { path, text };
        let root = source.root()?;
        Table { source, members: root.get_ref(), span: root.span() }.aliases()
    }
}

#[derive(Clone, Copy)]
struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

impl<'a> Source<'a> {
    fn root(self) -> Result<Spanned<DeTable<'a>>, Error> {
        let root = DeTable::parse(self.text)
            .map_err(|error| self.fault(&error.span().unwrap_or_default(), error.message().to_owned()))?;
        self.check_members(root.get_ref())?;
        Ok(root)
    }

    /// Refuses what this parser lets through and the reference does not, even where it means nothing.
    fn check_members(self, members: &DeTable<'a>) -> Result<(), Error> {
        for (key, value) in members {
            let between = self.text.get(key.span().end..value.span().start);
            if between.is_some_and(|text| text.contains('\n')) {
                let detail = format!("the value of \"{}\" must begin in the line of its key", key.get_ref());
                return Err(self.fault(&key.span(), detail));
            }
            self.check_value(value)?;
        }
        Ok(())
    }

    fn check_value(self, value: &Spanned<DeValue<'a>>) -> Result<(), Error> {
        let fits = match value.get_ref() {
            DeValue::Array(elements) => {
                return elements.iter().try_for_each(|element| self.check_value(element));
            }
            DeValue::Table(members) => return self.check_members(members),
            DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix()).is_ok(),
            DeValue::Float(float) => {
                float.as_str().contains("inf") || float.as_str().parse().is_ok_and(|x: f64| !x.is_infinite())
            }
            DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::String(_) => true,
        };
        if fits { Ok(()) } else { Err(self.fault(&value.span(), "the number is too large".to_owned())) }
    }

    fn position(self, span: &Range<usize>) -> Position {
        Span { start: span.start, end: span.end }.position(self.text.as_bytes())
    }

    fn fault(self, span: &Range<usize>, detail: String) -> Error {
        Error::RegistriesConf { path: self.path.to_owned(), at: Some(self.position(span)), detail }
    }
}

struct Table<'a> {
    source: Source<'a>,
    members: &'a DeTable<'a>,
    span: Range<usize>,
}

/// A string and where it is.
struct Text<'a> {
    span: Range<usize>,
    text: &'a str,
}

impl<'a> Table<'a> {
    /// The member that the reference takes for `name`: it reads keys in any case.
    ///
    /// Of several it takes any one, so that they are refused.
    fn member(&self, name: &str) -> Result<Option<&'a Spanned<DeValue<'a>>>, Error> {
        let mut same = self.members.iter().filter(|(key, _)| folds(key.get_ref(), name));
        match (same.next(), same.next()) {
            (None, _) => Ok(None),
            (Some((_, value)), None) => Ok(Some(value)),
            (Some((one, _)), Some((other, _))) => {
                let (first, second) =
                    if one.span().start < other.span().start { (one, other) } else { (other, one) };
                let line = self.source.position(&first.span()).line;
                let detail = format!(
                    "\"{}\" and \"{}\" of line {line} are the same key",
                    second.get_ref(),
                    first.get_ref()
                );
                Err(self.source.fault(&second.span(), detail))
            }
        }
    }

    fn string(&self, name: &str) -> Result<Option<Text<'a>>, Error> {
        self.member(name)?.map(|value| self.string_of(name, value)).transpose()
    }

    /// As [`Table::string`]; an empty string counts as absent.
    fn non_empty_string(&self, name: &str) -> Result<Option<Text<'a>>, Error> {
        Ok(self.string(name)?.filter(|string| !string.text.is_empty()))
    }

    fn string_of(&self, name: &str, value: &'a Spanned<DeValue<'a>>) -> Result<Text<'a>, Error> {
        match value.get_ref().as_str() {
            Some(text) => Ok(Text { span: value.span(), text }),
            None => Err(self.wrong_type(name, "a string", value)),
        }
    }

    fn boolean(&self, name: &str) -> Result<bool, Error> {
        let Some(value) = self.member(name)? else { return Ok(false) };
        let set = value.get_ref().as_bool();
        set.ok_or_else(|| self.wrong_type(name, "true or false, without quotes,", value))
    }

    /// The elements of an array; none if it is absent.
    fn elements(&self, name: &str) -> Result<Option<&'a [Spanned<DeValue<'a>>]>, Error> {
        let Some(value) = self.member(name)? else { return Ok(None) };
        match value.get_ref().as_array() {
            Some(elements) => Ok(Some(elements)),
            None => Err(self.wrong_type(name, "an array", value)),
        }
    }

    fn strings(&self, name: &str) -> Result<Option<Vec<Text<'a>>>, Error> {
        let Some(elements) = self.elements(name)? else { return Ok(None) };
        elements.iter().map(|element| self.string_of(name, element)).collect::<Result<_, _>>().map(Some)
    }

    fn tables(&self, name: &str) -> Result<Vec<Self>, Error> {
        let elements = self.elements(name)?.unwrap_or_default();
        elements.iter().map(|element| self.table_of(name, element)).collect()
    }

    fn table(&self, name: &str) -> Result<Option<Self>, Error> {
        self.member(name)?.map(|value| self.table_of(name, value)).transpose()
    }

    fn table_of(&self, name: &str, value: &'a Spanned<DeValue<'a>>) -> Result<Self, Error> {
        match value.get_ref().as_table() {
            Some(members) => Ok(Self { source: self.source, members, span: value.span() }),
            None => Err(self.wrong_type(name, "a table", value)),
        }
    }

    fn wrong_type(&self, name: &str, wanted: &str, found: &Spanned<DeValue<'_>>) -> Error {
        let detail = format!("\"{name}\" must be {wanted} and not of type {}", found.get_ref().type_str());
        self.source.fault(&found.span(), detail)
    }

    /// Rule M-1: lists of version 1 of the format are errors.
    fn check_version(&self) -> Result<(), Error> {
        let Some(registries) = self.table("registries")? else { return Ok(()) };
        for name in ["search", "insecure", "block"] {
            let Some(table) = registries.table(name)? else { continue };
            if table.strings("registries")?.is_some() {
                return Err(Error::RegistriesConfVersion {
                    path: self.source.path.to_owned(),
                    at: self.source.position(&table.span),
                    table: name,
                });
            }
        }
        Ok(())
    }

    fn registries(&self) -> Result<Vec<Registry>, Error> {
        let tables = self.tables("registry")?;
        let mut registries: Vec<Registry> = Vec::new();
        let mut prefixes = BTreeSet::new();
        let mut places = BTreeMap::new();
        for table in &tables {
            let registry = table.registry()?;
            let location = &registry.primary.location;
            let place = if location.is_empty() { &registry.prefix } else { location };
            let settings = [("insecure", registry.primary.insecure), ("blocked", registry.blocked)];
            match places.entry(place.clone()) {
                Entry::Vacant(entry) => {
                    entry.insert((settings, table.span.clone()));
                }
                Entry::Occupied(entry) => {
                    let (first, span) = entry.get();
                    if let Some(((name, one), (_, other))) =
                        first.iter().zip(settings).find(|((_, one), (_, other))| one != other)
                    {
                        let line = self.source.position(span).line;
                        let detail = format!(
                            "\"{name}\" of \"{place}\" is {other} here and {one} in the table of line {line}"
                        );
                        return Err(self.source.fault(&table.span, detail));
                    }
                }
            }
            if prefixes.insert(registry.prefix.clone()) {
                registries.push(registry);
            }
        }
        Ok(registries)
    }

    fn registry(&self) -> Result<Registry, Error> {
        let fault = |span: &Range<usize>, detail: &str| Err(self.source.fault(span, detail.to_owned()));
        let primary = self.place()?;
        let written = self.non_empty_string("prefix")?;
        let (span, prefix) = match &written {
            Some(written) => (&written.span, self.location(written)?),
            None if primary.location.is_empty() => {
                return fault(&self.span, "\"registry\" has neither a \"location\" nor a \"prefix\"");
            }
            None => (&self.span, primary.location.clone()),
        };
        let wildcard = prefix.starts_with("*.");
        if primary.location.is_empty() && !wildcard {
            return fault(
                span,
                "\"registry\" needs a \"location\": only with a prefix as \"*.example.com\" there may be none",
            );
        }
        if wildcard && prefix.contains(['/', '@', ':']) {
            return fault(
                span,
                "a prefix with \"*.\" is nothing but that and a host name, as in \"*.example.com\"",
            );
        }
        if let Some(written) = self.non_empty_string("pull-from-mirror")? {
            return fault(&written.span, "\"pull-from-mirror\" is for mirrors only");
        }
        let by_digest_only = self.boolean("mirror-by-digest-only")?;
        let mirrors = self.tables("mirror")?;
        Ok(Registry {
            prefix,
            primary,
            mirrors: mirrors.iter().map(|mirror| mirror.mirror(by_digest_only)).collect::<Result<_, _>>()?,
            blocked: self.boolean("blocked")?,
        })
    }

    fn mirror(&self, by_digest_only: bool) -> Result<(Place, Pulls), Error> {
        let fault = |span: &Range<usize>, detail: String| Err(self.source.fault(span, detail));
        let place = self.place()?;
        if place.location.is_empty() {
            return fault(&self.span, "\"mirror\" has no \"location\"".to_owned());
        }
        let pulls = match self.non_empty_string("pull-from-mirror")? {
            None if by_digest_only => Pulls::ByDigest,
            None => Pulls::All,
            Some(written) if by_digest_only => {
                let detail = "\"pull-from-mirror\" does not go together with \"mirror-by-digest-only\"";
                return fault(&written.span, detail.to_owned());
            }
            Some(Text { text: "all", .. }) => Pulls::All,
            Some(Text { text: "digest-only", .. }) => Pulls::ByDigest,
            Some(Text { text: "tag-only", .. }) => Pulls::ByTag,
            Some(Text { span, text }) => {
                let detail = format!("\"{text}\" is none of \"all\", \"digest-only\" and \"tag-only\"");
                return fault(&span, detail);
            }
        };
        Ok((place, pulls))
    }

    fn place(&self) -> Result<Place, Error> {
        let location = match self.string("location")? {
            Some(written) => self.location(&written)?,
            None => String::new(),
        };
        let namespace_proxy = self.non_empty_string("namespace-proxy")?.is_some();
        Ok(Place { location, insecure: self.boolean("insecure")?, namespace_proxy })
    }

    /// A location, prefix or registry without slashes at its end.
    fn location(&self, Text { span, text }: &Text<'_>) -> Result<String, Error> {
        let trimmed = text.trim_end_matches('/');
        if trimmed.starts_with("http://") || trimmed.starts_with("https://") {
            let detail = format!("\"{text}\" must be written without \"http://\" or \"https://\"");
            return Err(self.source.fault(span, detail));
        }
        Ok(trimmed.to_owned())
    }

    /// Hosts to complete short names with (rule N-3).
    fn search(&self) -> Result<Option<Vec<String>>, Error> {
        let Some(list) = self.strings("unqualified-search-registries")? else { return Ok(None) };
        let host = |written: Text<'_>| {
            let host = self.location(&written)?;
            if is_domain(&host) {
                Ok(host)
            } else {
                let detail = format!("\"{}\" is no host with an optional port", written.text);
                Err(self.source.fault(&written.span, detail))
            }
        };
        list.into_iter().map(host).collect::<Result<_, _>>().map(Some)
    }

    /// Rule N-2.
    fn aliases(&self) -> Result<BTreeMap<String, Option<Named>>, Error> {
        let Some(table) = self.table("aliases")? else { return Ok(BTreeMap::new()) };
        let alias = |(name, value): (&Spanned<DeString<'a>>, &'a Spanned<DeValue<'a>>)| {
            let key = name.get_ref();
            if !is_alias_name(key) {
                let detail = format!("\"{key}\" is no short name: an alias has no host, tag or digest");
                return Err(self.source.fault(&name.span(), detail));
            }
            let Text { span, text } = self.string_of(key, value)?;
            // An empty one erases the alias of an earlier file.
            let image = (!text.is_empty()).then(|| parse_alias(text)).transpose().map_err(|detail| {
                self.source.fault(&span, format!("the alias \"{text}\" of \"{key}\": {detail}"))
            })?;
            Ok((key.clone().into_owned(), image))
        };
        table.members.iter().map(alias).collect()
    }
}
