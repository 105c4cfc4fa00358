//! [`ShortName`]: names without a registry, and what they stand for (rules N-1 to N-3).

use std::fmt;
use std::path::PathBuf;

use super::{Environment, Error, RegistriesConf};
use crate::diagnostic::escape;
use crate::nonempty::NonEmpty;
use crate::reference::{self, Named, is_domain, is_path};

/// What a short name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShortName {
    /// An alias says which image it is.
    Alias {
        /// The image, with tag or digest.
        image: Named,
        /// The file with the alias.
        file: PathBuf,
    },
    /// It may be any of these; each must be judged under its own name (rule N-4).
    Candidates {
        /// The images in the order of the registries, with tag or digest.
        images: NonEmpty<Named>,
        /// The file with the registries.
        file: PathBuf,
    },
}

/// What a short name may be resolved with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShortNames {
    /// With an alias only (T-22).
    AliasesOnly,
    /// With an alias, else with the registries that complete short names.
    Search,
}

/// Why a short name leads to no image, or not to exactly one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShortNameProblem {
    /// Several registries complete it.
    Ambiguous {
        /// The images in question.
        candidates: Box<NonEmpty<Named>>,
        /// The file with the registries.
        file: PathBuf,
    },
    /// It is no name at all.
    Name(reference::Error),
    /// Only an alias would do, and there is none.
    NoAlias,
    /// There is no alias, and no registry to complete it with.
    NoRegistry,
    /// It names a registry.
    NotShort,
    /// With this registry in front it is no name.
    Registry {
        /// The registry.
        registry: String,
        /// The file with the registry.
        file: PathBuf,
        /// What is wrong.
        error: reference::Error,
    },
}

impl ShortNameProblem {
    /// What can be done about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Ambiguous { .. } | Self::NoAlias | Self::NoRegistry => {
                "write the registry too, as in registry.example/name, or an alias under [aliases] in a file of /etc/containers/registries.conf.d"
            }
            Self::Name(error) | Self::Registry { error, .. } => error.help(),
            Self::NotShort => "write docker:// in front of a name with a registry",
        }
    }
}

impl fmt::Display for ShortNameProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ambiguous { candidates, file } => {
                let candidates: Vec<String> = candidates.iter().map(|image| format!("\"{image}\"")).collect();
                write!(
                    f,
                    "no alias says so, and by \"{}\" it may be {}",
                    escape(&file.to_string_lossy()),
                    candidates.join(" or ")
                )
            }
            Self::Name(error) => write!(f, "{error}"),
            Self::NoAlias => f.write_str("there is no alias for it"),
            Self::NoRegistry => f.write_str(
                "there is no alias for it, and no \"unqualified-search-registries\" are configured",
            ),
            Self::NotShort => f.write_str("it is no short name"),
            Self::Registry { registry, file, error } => write!(
                f,
                "with \"{}\" of \"{}\" in front, {error}",
                escape(registry),
                escape(&file.to_string_lossy())
            ),
        }
    }
}

/// Whether a name is without a registry, so that configuration decides which image it is (rule N-1).
pub fn is_short_name(text: &str) -> bool {
    text.split_once('/').is_none_or(|(first, _)| !is_host(first))
}

impl RegistriesConf {
    /// What a short name stands for (rules N-2, N-3).
    pub fn resolve_short_name(&self, text: &str) -> Result<ShortName, Error> {
        let problem = |problem| Error::ShortName { name: text.to_owned(), problem };
        if !is_short_name(text) {
            return Err(problem(ShortNameProblem::NotShort));
        }
        Named::parse(text).map_err(|error| problem(ShortNameProblem::Name(error)))?;
        let (name, suffix) = text.split_at(text.find([':', '@']).unwrap_or(text.len()));
        let cached = self.cached_aliases.as_ref().map_err(Clone::clone)?;
        // An alias that the cache erases is not looked for elsewhere.
        if let Some(alias) = cached.get(name).or_else(|| self.aliases.get(name))
            && let Some(image) = &alias.image
        {
            let image = Named::parse(&format!("{image}{suffix}"))
                .map_err(|error| problem(ShortNameProblem::Name(error)))?;
            return Ok(ShortName::Alias { image: image.with_default_tag(), file: alias.file.clone() });
        }
        let (registries, file) = self.search.as_ref().ok_or_else(|| problem(ShortNameProblem::NoRegistry))?;
        let candidate = |registry: &String| match Named::parse(&format!("{registry}/{text}")) {
            Ok(image) => Ok(image.with_default_tag()),
            Err(error) => Err(problem(ShortNameProblem::Registry {
                registry: registry.clone(),
                file: file.clone(),
                error,
            })),
        };
        let images = registries.iter().map(candidate).collect::<Result<_, _>>()?;
        match NonEmpty::from_vec(images) {
            Some(images) => Ok(ShortName::Candidates { images, file: file.clone() }),
            None => Err(problem(ShortNameProblem::NoRegistry)),
        }
    }

    /// The one image that a short name stands for; an error if it may be several (T-22).
    pub fn resolve_unique(&self, text: &str, with: ShortNames) -> Result<Named, Error> {
        let problem = match (self.resolve_short_name(text), with) {
            (Ok(ShortName::Alias { image, .. }), ShortNames::AliasesOnly | ShortNames::Search) => {
                return Ok(image);
            }
            (Ok(ShortName::Candidates { images, .. }), ShortNames::Search) if images.count() == 1 => {
                return Ok(images.first().clone());
            }
            (Ok(ShortName::Candidates { images, file }), ShortNames::Search) => {
                ShortNameProblem::Ambiguous { candidates: Box::new(images), file }
            }
            (Ok(ShortName::Candidates { .. }), ShortNames::AliasesOnly) => ShortNameProblem::NoAlias,
            (
                Err(Error::ShortName {
                    problem: ShortNameProblem::NoRegistry | ShortNameProblem::Registry { .. },
                    ..
                }),
                ShortNames::AliasesOnly,
            ) => ShortNameProblem::NoAlias,
            (Err(error), ShortNames::AliasesOnly | ShortNames::Search) => return Err(error),
        };
        Err(Error::ShortName { name: text.to_owned(), problem })
    }
}

/// Where engines write down the aliases that users have chosen (rule N-2).
pub(super) fn cache(environment: &Environment) -> Option<PathBuf> {
    if environment.uid == 0 {
        return Some(environment.system_path("/var/cache/containers/short-name-aliases.conf"));
    }
    let user = environment.user.as_ref()?;
    let base = user.xdg_cache_home.clone().unwrap_or_else(|| user.home.join(".cache"));
    Some(base.join("containers/short-name-aliases.conf"))
}

/// Whether the reference takes `name` as the name of an alias (rule N-2).
pub(super) fn is_alias_name(name: &str) -> bool {
    name.len() <= 255
        && match name.split_once('/') {
            Some((first, rest)) if is_domain(first) && is_path(rest) => !is_host(first),
            Some(_) | None => is_path(name),
        }
}

/// The repository that an alias stands for: with a host, without tag and digest (rule N-2).
pub(super) fn parse_alias(text: &str) -> Result<Named, String> {
    if is_short_name(text) {
        return Err("it must begin with the host of a registry".to_owned());
    }
    let image = Named::parse(text).map_err(|error| error.to_string())?;
    if !image.is_name_only() {
        return Err("it must have neither tag nor digest".to_owned());
    }
    if image.domain().is_empty() {
        return Err("it must begin with the host of a registry".to_owned());
    }
    Ok(image)
}

fn is_host(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}
