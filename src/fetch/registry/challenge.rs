//! [`Challenge`]: how a registry wants to be shown who asks, as it says in `WWW-Authenticate`.

use std::collections::HashMap;

use crate::fetch::credentials::Credentials;
use crate::fetch::registry::authorization::{Authorization, has_password};

/// How a registry wants to be shown who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Basic,
    Bearer { realm: String, service: String },
}

/// A scheme, and the scope that the token lacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    pub(super) scheme: Scheme,
    pub(super) wider_scope: Option<String>,
}

impl Challenge {
    /// RFC 9110, section 11.6.1: challenges of a header line; parameter names in any case, the first of several counts.
    pub(super) fn first_supported(line: &str) -> Option<Self> {
        let mut scanner = Scanner(line);
        loop {
            scanner.skip(&[' ', '\t', ',']);
            let scheme = scanner.token()?.to_ascii_lowercase();
            let mut parameters = HashMap::new();
            loop {
                scanner.skip(&[' ', '\t', ',']);
                let start = scanner.0;
                match scanner.parameter() {
                    Some((name, value)) => {
                        parameters.entry(name.to_ascii_lowercase()).or_insert(value);
                    }
                    None => {
                        scanner.0 = start;
                        break;
                    }
                }
            }
            if let Some(challenge) = Self::supported(&scheme, parameters) {
                return Some(challenge);
            }
            // What is neither parameter nor scheme is a token68 or garbage: go on behind the next comma.
            if scanner.clone().token().is_none() {
                scanner.0 = scanner.0.split_once(',')?.1;
            }
        }
    }

    fn supported(scheme: &str, mut parameters: HashMap<String, String>) -> Option<Self> {
        match scheme {
            "basic" => Some(Self { scheme: Scheme::Basic, wider_scope: None }),
            "bearer" => {
                let lacks_scope = parameters.get("error").is_some_and(|e| e == "insufficient_scope");
                let wider_scope = parameters.remove("scope").filter(|scope| lacks_scope && !scope.is_empty());
                let realm = parameters.remove("realm")?;
                let service = parameters.remove("service").unwrap_or_default();
                Some(Self { scheme: Scheme::Bearer { realm, service }, wider_scope })
            }
            _ => None,
        }
    }

    /// The first text that is longer than one that is kept and sent on.
    pub(super) fn check_length(&self) -> Result<(), String> {
        let Scheme::Bearer { realm, service } = &self.scheme else { return Ok(()) };
        let parameters =
            [("realm", Some(realm)), ("service", Some(service)), ("scope", self.wider_scope.as_ref())];
        match parameters.iter().find(|(_, text)| text.is_some_and(|text| text.len() > PARAMETER_BYTES)) {
            Some((name, _)) => {
                Err(format!("the {name} of its challenge is longer than {PARAMETER_BYTES} bytes"))
            }
            None => Ok(()),
        }
    }

    /// The scope that is wanted beyond these.
    pub(super) fn scope_beyond(&self, scopes: &[String]) -> Option<&String> {
        self.wider_scope.as_ref().filter(|scope| !scopes.contains(scope))
    }

    /// Whether another request may have another answer: the same credentials are not shown twice in vain.
    pub(super) fn is_worth_trying(
        &self,
        used: Option<&Authorization>,
        credentials: Option<&Credentials>,
        scopes: &[String],
    ) -> bool {
        let asks_for_more = self.scope_beyond(scopes).is_some();
        match (used, &self.scheme) {
            (None, Scheme::Basic) => credentials.is_some_and(has_password),
            (None, Scheme::Bearer { .. }) => true,
            (Some(used), scheme) => used.scheme != *scheme || asks_for_more || !used.fresh,
        }
    }
}

/// Reads the parts of a structured header from its front.
#[derive(Clone)]
pub(super) struct Scanner<'a>(pub(super) &'a str);

impl<'a> Scanner<'a> {
    pub(super) fn skip(&mut self, chars: &[char]) {
        self.0 = self.0.trim_start_matches(chars);
    }

    /// RFC 9110, section 5.6.2.
    fn token(&mut self) -> Option<&'a str> {
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let (token, rest) = self.0.split_at(self.0.find(|c| !is_token(c)).unwrap_or(self.0.len()));
        self.0 = rest;
        (!token.is_empty()).then_some(token)
    }

    /// `name=value` or `name="value"`.
    pub(super) fn parameter(&mut self) -> Option<(&'a str, String)> {
        let name = self.token()?;
        self.skip(&[' ', '\t']);
        self.0 = self.0.strip_prefix('=')?;
        self.skip(&[' ', '\t']);
        let value = match self.0.strip_prefix('"') {
            Some(quoted) => {
                self.0 = quoted;
                self.rest_of_quoted()?
            }
            None => self.token()?.to_owned(),
        };
        self.skip(&[' ', '\t']);
        (self.0.is_empty() || self.0.starts_with([',', ';'])).then_some((name, value))
    }

    fn rest_of_quoted(&mut self) -> Option<String> {
        let mut value = String::new();
        let mut chars = self.0.chars();
        loop {
            match chars.next()? {
                '"' => break,
                '\\' => value.push(chars.next()?),
                other => value.push(other),
            }
        }
        self.0 = chars.as_str();
        Some(value)
    }
}

/// Longest realm, service or scope: 4 KiB; those of the large registries have less than 200 bytes.
const PARAMETER_BYTES: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_supported_challenge_counts() {
        let bearer = |realm: &str, service: &str, wider_scope: Option<&str>| {
            Some(Challenge {
                scheme: Scheme::Bearer { realm: realm.into(), service: service.into() },
                wider_scope: wider_scope.map(str::to_owned),
            })
        };
        let basic = Some(Challenge { scheme: Scheme::Basic, wider_scope: None });
        for (line, challenge) in [
            ("Basic realm=\"r\"", basic.clone()),
            ("basic", basic.clone()),
            ("BASIC realm=r, Bearer realm=\"x\"", basic.clone()),
            (
                "Bearer realm=\"https://a/t\",service=\"s\",scope=\"repository:a:pull\"",
                bearer("https://a/t", "s", None),
            ),
            ("Bearer realm=\"https://a/t\"", bearer("https://a/t", "", None)),
            ("bearer REALM = \"a\\\"b,c\" , Service=s", bearer("a\"b,c", "s", None)),
            ("Bearer realm=\"a\",realm=\"b\"", bearer("a", "", None)),
            ("Bearer realm=\"a\",error=\"insufficient_scope\",scope=\"x y\"", bearer("a", "", Some("x y"))),
            ("Bearer realm=\"a\",error=\"invalid_token\",scope=\"x\"", bearer("a", "", None)),
            ("Negotiate, Basic realm=\"r\"", basic.clone()),
            ("NTLM abc==, Bearer realm=\"a\"", bearer("a", "", None)),
            ("Digest nonce=\"Basic\", Basic", basic),
            ("Bearer", None),
            ("Bearer realm=\"a", None),
            ("Negotiate", None),
            ("", None),
            (",,,", None),
            ("\"", None),
            ("= = =", None),
        ] {
            assert_eq!(Challenge::first_supported(line), challenge, "{line}");
        }
    }
}
