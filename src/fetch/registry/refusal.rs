//! [`Refusal`]: an answer other than 200, and what it means.

use std::fmt;
use std::iter;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use reqwest::{Response, StatusCode};
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::fetch::Error;
use crate::fetch::credentials::{Credentials, Secret};
use crate::fetch::registry::authorization::Authorization;
use crate::fetch::registry::excerpt;
use crate::fetch::registry::visit::Visit;

/// An answer other than 200.
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    said: Option<OciError>,
    text: String,
    had_credentials: bool,
}

impl Refusal {
    /// Reads why there is no other answer. A text that repeats what was secret is not shown.
    pub(super) async fn read(
        visit: &Visit<'_>,
        response: Response,
        authorization: Option<&Authorization>,
        credentials: Option<&Credentials>,
    ) -> Result<Self, Error> {
        let status = response.status();
        let body = visit.read(response, ERROR_BYTES).await?;
        let said = OciError::parse(&body);
        let text = match &said {
            Some(error) => error.to_string(),
            None => String::from_utf8_lossy(&body).trim().to_owned(),
        };
        let used = authorization.into_iter().flat_map(|a| &a.secrets);
        let held = credentials.into_iter().flat_map(|c| iter::once(&c.password).chain(&c.identity_token));
        let text = if repeats(&text, used.chain(held)) {
            "(an answer that repeats a secret)".to_owned()
        } else {
            excerpt(&text)
        };
        Ok(Self { status, said, text, had_credentials: credentials.is_some() })
    }

    /// As [`Refusal::read`] after a secret was sent where an echo may take any form: no word of it is shown.
    pub(super) async fn read_code(visit: &Visit<'_>, response: Response) -> Result<Self, Error> {
        let status = response.status();
        let said = OciError::parse(&visit.read(response, ERROR_BYTES).await?);
        let code = said.as_ref().and_then(|error| error.code.as_deref());
        let text = code.filter(|code| REGISTERED_CODES.contains(code)).unwrap_or_default().to_owned();
        Ok(Self { status, said, text, had_credentials: true })
    }

    /// Whether it says that a manifest does not exist (rule A-3). A 401 never does.
    pub(super) fn is_missing(&self) -> bool {
        if !self.status.is_client_error()
            || matches!(self.status, StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS)
        {
            return false;
        }
        match &self.said {
            None => self.status == StatusCode::NOT_FOUND,
            Some(OciError { code: None, .. }) => false,
            Some(OciError { code: Some(code), message }) => {
                let is_unknown_code = code == "UNKNOWN" || !REGISTERED_CODES.contains(&code.as_str());
                code == "MANIFEST_UNKNOWN" || is_unknown_code && message.to_lowercase().contains("not found")
            }
        }
    }

    pub(super) fn into_error(self, visit: &Visit<'_>) -> Error {
        let registry = visit.registry.clone();
        let mut detail = format!("{}: {self}", visit.waiting_for);
        match self.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                detail.push_str(match self.had_credentials {
                    true => " (credentials for it were found)",
                    false => " (no credentials for it were found)",
                });
                Error::RegistryAuth { registry, detail }
            }
            StatusCode::TOO_MANY_REQUESTS => Error::RegistryUnavailable { registry, detail },
            status if status.is_server_error() => Error::RegistryUnavailable { registry, detail },
            _ => Error::RegistryProtocol { registry, detail },
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}", self.status.as_u16())?;
        if self.text.is_empty() { Ok(()) } else { write!(f, ", {}", self.text) }
    }
}

/// The first entry of an OCI error list; distribution-spec, "Error Codes" (rule H-6).
#[derive(Debug, PartialEq, Eq)]
struct OciError {
    /// None if the member is missing, which differs from an unknown code (rule A-3).
    code: Option<String>,
    message: String,
}

impl fmt::Display for OciError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code.as_deref().unwrap_or_default() {
            "" => f.write_str(&self.message),
            code if self.message.is_empty() => f.write_str(code),
            code => write!(f, "{code}: {}", self.message),
        }
    }
}

impl OciError {
    /// None if the body is no such list, or an empty one.
    fn parse(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Details {
            details: Option<String>,
        }
        #[derive(Deserialize)]
        struct List {
            errors: Option<First>,
        }
        // An older form, which the reference takes for an error of code UNKNOWN.
        if let Ok(Details { details: Some(message) }) = serde_json::from_slice(body)
            && !message.is_empty()
        {
            return Some(Self { code: Some("UNKNOWN".to_owned()), message });
        }
        serde_json::from_slice::<List>(body).ok()?.errors?.0
    }
}

/// The first element of a list; the others are not kept.
struct First(Option<OciError>);

impl<'de> Deserialize<'de> for First {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Entry {
            code: Option<String>,
            message: Option<String>,
        }
        struct Elements;
        impl<'de> Visitor<'de> for Elements {
            type Value = First;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of errors")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<First, A::Error> {
                let first = elements.next_element::<Option<Entry>>()?;
                while elements.next_element::<IgnoredAny>()?.is_some() {}
                Ok(First(first.map(|entry| {
                    let entry = entry.unwrap_or(Entry { code: None, message: None });
                    OciError { code: entry.code, message: entry.message.unwrap_or_default() }
                })))
            }
        }
        deserializer.deserialize_seq(Elements)
    }
}

/// Whether a text holds a secret, as it is or as it may have been sent: in base64, and percent-encoded.
fn repeats<'a>(text: &str, secrets: impl Iterator<Item = &'a Secret>) -> bool {
    let texts = [text.to_owned(), percent_decoded(text), percent_decoded(&text.replace('+', " "))];
    secrets.map(Secret::expose).filter(|secret| !secret.is_empty()).any(|secret| {
        // Without padding they are also the beginning of what has some.
        let forms = [secret.to_owned(), STANDARD_NO_PAD.encode(secret), URL_SAFE_NO_PAD.encode(secret)];
        forms.iter().any(|form| texts.iter().any(|text| text.contains(form)))
    })
}

/// RFC 3986, section 2.1; a percent sign that begins no escape stays.
fn percent_decoded(text: &str) -> String {
    let mut decoded = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = match rest {
            [b'%', high, low, after @ ..] => hex_byte(*high, *low).map(|byte| (byte, after)),
            _ => None,
        };
        let (byte, after) = escaped.unwrap_or((*first, after));
        decoded.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn hex_byte(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// Codes that the reference knows; any other counts as UNKNOWN (rule A-3).
const REGISTERED_CODES: [&str; 19] = [
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DENIED",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "MANIFEST_UNVERIFIED",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "PAGINATION_NUMBER_INVALID",
    "RANGE_INVALID",
    "SIZE_INVALID",
    "TAG_INVALID",
    "TOOMANYREQUESTS",
    "UNAUTHORIZED",
    "UNAVAILABLE",
    "UNSUPPORTED",
];

/// Rule H-10.
const ERROR_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_exist_is_told_from_what_failed() {
        let list = |code: &str, message: &str| {
            format!("{{\"errors\":[{{\"code\":\"{code}\",\"message\":\"{message}\"}}]}}")
        };
        for (status, body, missing) in [
            (404, list("MANIFEST_UNKNOWN", "manifest unknown"), true),
            (400, list("MANIFEST_UNKNOWN", ""), true),
            (401, list("MANIFEST_UNKNOWN", ""), false),
            (429, list("MANIFEST_UNKNOWN", ""), false),
            (500, list("MANIFEST_UNKNOWN", ""), false),
            (302, list("MANIFEST_UNKNOWN", ""), false),
            (404, list("UNKNOWN", "Not Found"), true),
            (404, list("UNKNOWN", "artifact x NOT FOUND here"), true),
            (404, list("UNKNOWN", "unknown error"), false),
            (404, list("NOT_FOUND", "artifact not found"), true),
            (404, list("", "not found"), true),
            (404, list("NAME_UNKNOWN", "repository not found"), false),
            (404, list("DENIED", "not found"), false),
            (403, list("DENIED", ""), false),
            (404, "{\"errors\":[{\"message\":\"not found\"}]}".into(), false),
            (404, "{\"errors\":[null]}".into(), false),
            (404, "{\"errors\":[]}".into(), true),
            (404, "{\"errors\":null}".into(), true),
            (404, "{\"errors\":[{\"code\":5}]}".into(), true),
            (404, "{\"details\":\"it was not found\"}".into(), true),
            (404, "{\"details\":\"go away\"}".into(), false),
            (404, "{}".into(), true),
            (404, "[]".into(), true),
            (404, "404 page not found\n".into(), true),
            (404, String::new(), true),
            (403, "not found".into(), false),
            (410, String::new(), false),
        ] {
            let refusal = Refusal {
                status: StatusCode::from_u16(status).unwrap(),
                said: OciError::parse(body.as_bytes()),
                text: String::new(),
                had_credentials: false,
            };
            assert_eq!(refusal.is_missing(), missing, "{status} {body}");
        }
    }
}
