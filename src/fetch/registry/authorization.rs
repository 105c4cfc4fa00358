//! [`Authorization`]: what a request shows to the registry, and the tokens that it takes (rule H-3).

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use reqwest::{StatusCode, Url};
use serde::Deserialize;
use tokio::time::Instant;

use crate::digest::Digest;
use crate::fetch::Error;
use crate::fetch::credentials::{Credentials, Secret};
use crate::fetch::registry::address::{Class, check_steered_url};
use crate::fetch::registry::challenge::Scheme;
use crate::fetch::registry::refusal::Refusal;
use crate::fetch::registry::visit::Visit;
use crate::fetch::registry::{Ask, Client, excerpt, insert, lock};

/// What a request shows to the registry.
pub(super) struct Authorization {
    pub(super) header: HeaderValue,
    pub(super) scheme: Scheme,
    /// Whether it was made for this request, so that there is none better.
    pub(super) fresh: bool,
    pub(super) secrets: Vec<Secret>,
}

impl Client {
    /// What to send to the registry, as far as its challenge is known.
    pub(super) async fn authorize(
        &self,
        visit: &Visit<'_>,
        scopes: &[String],
        credentials: Option<&Credentials>,
    ) -> Result<Option<Authorization>, Error> {
        let known = lock(&self.challenges).get(&visit.registry).cloned();
        match known {
            None => Ok(None),
            Some(Known { scheme: Scheme::Basic, .. }) => {
                credentials.filter(|c| has_password(c)).map(|c| basic(visit, c)).transpose()
            }
            Some(Known { scheme: Scheme::Bearer { realm, service }, class }) => {
                let key = TokenKey {
                    registry: visit.registry.clone(),
                    realm: realm.clone(),
                    service: service.clone(),
                    scopes: scopes.to_vec(),
                    credentials: credentials.map(Credentials::fingerprint),
                };
                let cached = lock(&self.tokens).get(&key).filter(|t| Instant::now() < t.expires).cloned();
                let fresh = cached.is_none();
                let token = match cached {
                    Some(token) => token,
                    None => {
                        let token = self.fetch_token(visit, &key, class, credentials).await?;
                        insert(&self.tokens, key, token.clone(), TOKENS);
                        token
                    }
                };
                let header = format!("Bearer {}", token.secret.expose());
                let scheme = Scheme::Bearer { realm, service };
                let header = sensitive(&header)
                    .ok_or_else(|| visit.protocol("its token does not fit into a header"))?;
                Ok(Some(Authorization { header, scheme, fresh, secrets: vec![token.secret] }))
            }
        }
    }

    /// A new token for these scopes (rule H-3).
    async fn fetch_token(
        &self,
        visit: &Visit<'_>,
        key: &TokenKey,
        class: Class,
        credentials: Option<&Credentials>,
    ) -> Result<Token, Error> {
        let realm =
            Url::parse(&key.realm).map_err(|e| visit.protocol(&format!("its token realm is no URL: {e}")))?;
        check_steered_url(&realm).map_err(|detail| visit.protocol(&format!("its token realm {detail}")))?;
        let host = excerpt(realm.host_str().unwrap_or_default());
        let visit = visit.instead_for(format!("a token from {host}"));
        let mut ask = Ask { steered_from: Some(class), ..Ask::to(realm) };
        let mut shown = None;
        let mut fields = vec![("service", key.service.as_str())];
        fields.retain(|(_, value)| !value.is_empty());
        fields.extend(key.scopes.iter().map(|scope| ("scope", scope.as_str())));
        if let Some(token) = credentials.and_then(|c| c.identity_token.as_ref()) {
            fields.extend([
                ("grant_type", "refresh_token"),
                ("client_id", "vouchd"),
                ("refresh_token", token.expose()),
            ]);
            ask.form = Some(Secret::new(form(&fields)));
        } else {
            let user = credentials.map(|c| c.user.as_str()).filter(|user| !user.is_empty());
            ask.url.query_pairs_mut().extend_pairs(user.map(|user| ("account", user))).extend_pairs(&fields);
            if let Some(credentials) = credentials.filter(|c| has_password(c)) {
                shown = Some(basic(&visit, credentials)?);
                ask.authorization = shown.as_ref().map(|a| a.header.clone());
            }
        }
        let answer = self.exchange(&visit, ask).await?;
        if answer.response.status() != StatusCode::OK {
            let refusal = Refusal::read(&visit, answer.response, shown.as_ref(), credentials).await?;
            return Err(refusal.into_error(&visit));
        }
        let body = visit.read(answer.response, TOKEN_BYTES).await?;
        Token::parse(&body).ok_or_else(|| visit.protocol("its token server sent no token"))
    }

    pub(super) fn forget_tokens(&self, registry: &str, scopes: &[String]) {
        lock(&self.tokens).retain(|key, _| key.registry != registry || key.scopes != scopes);
    }
}

/// What is remembered of a registry's challenge.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) scheme: Scheme,
    /// The class of the address that sent it.
    pub(super) class: Class,
}

/// Everything on which a token depends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct TokenKey {
    registry: String,
    realm: String,
    service: String,
    scopes: Vec<String>,
    credentials: Option<Digest>,
}

#[derive(Clone, Debug)]
pub(super) struct Token {
    secret: Secret,
    expires: Instant,
}

impl Token {
    /// Distribution token specification, "Token Response Fields"; at least 60 seconds of life (rule H-3).
    fn parse(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Fields {
            token: Option<Secret>,
            access_token: Option<Secret>,
            expires_in: Option<i64>,
        }
        let fields: Fields = serde_json::from_slice(body).ok()?;
        let secret =
            [fields.token, fields.access_token].into_iter().flatten().find(|t| !t.expose().is_empty())?;
        let seconds = u64::try_from(fields.expires_in.unwrap_or(0)).unwrap_or(0).clamp(60, TOKEN_SECONDS);
        Some(Self { secret, expires: Instant::now().checked_add(Duration::from_secs(seconds))? })
    }
}

pub(super) fn has_password(credentials: &Credentials) -> bool {
    !credentials.user.is_empty() && !credentials.password.expose().is_empty()
}

/// RFC 7617.
fn basic(visit: &Visit<'_>, credentials: &Credentials) -> Result<Authorization, Error> {
    let encoded = STANDARD.encode(format!("{}:{}", credentials.user, credentials.password.expose()));
    let header = sensitive(&format!("Basic {encoded}"));
    let header = header.ok_or_else(|| visit.protocol("the credentials do not fit into a header"))?;
    Ok(Authorization { header, scheme: Scheme::Basic, fresh: true, secrets: vec![Secret::new(encoded)] })
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(text).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// `application/x-www-form-urlencoded`, as in the query of a URL.
fn form(fields: &[(&str, &str)]) -> String {
    Url::parse_with_params("https://form.invalid/", fields)
        .ok()
        .and_then(|url| url.query().map(str::to_owned))
        .unwrap_or_default()
}

/// Rule H-10.
const TOKEN_BYTES: usize = 1 << 20;

/// Longest life of a token here, whatever it says: a day.
const TOKEN_SECONDS: u64 = 86_400;

/// Tokens remembered at a time: a host uses a handful.
const TOKENS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_live_at_least_a_minute() {
        for (body, token, seconds) in [
            ("{\"token\":\"t\"}", "t", 60),
            ("{\"access_token\":\"a\",\"expires_in\":300}", "a", 300),
            ("{\"token\":\"t\",\"access_token\":\"a\",\"expires_in\":-5}", "t", 60),
            ("{\"token\":\"\",\"access_token\":\"a\",\"expires_in\":99999999}", "a", TOKEN_SECONDS),
        ] {
            let before = Instant::now();
            let parsed = Token::parse(body.as_bytes()).unwrap();
            assert_eq!(parsed.secret.expose(), token);
            let life = parsed.expires - before;
            assert!((seconds..=seconds + 5).contains(&life.as_secs()), "{body}: {life:?}");
        }
        for body in ["", "{}", "[]", "{\"token\":5}", "{\"token\":null}", "<html>"] {
            assert!(Token::parse(body.as_bytes()).is_none(), "{body}");
        }
    }

    #[test]
    fn forms_are_escaped() {
        assert_eq!(form(&[("a", "x&y=z +"), ("b", "ä")]), "a=x%26y%3Dz+%2B&b=%C3%A4");
    }
}
