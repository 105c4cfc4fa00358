//! [`Digest`]: algorithm and value of a content digest.

use std::{fmt, io};

/// A hash algorithm that a digest may name, with lower-case hexadecimal of fixed length.
///
/// OCI image-spec, descriptor.md, "Registered algorithms"; rule R-6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, 64 hexadecimal digits.
    Sha256,
    /// SHA-384, 96 hexadecimal digits.
    Sha384,
    /// SHA-512, 128 hexadecimal digits.
    Sha512,
}

impl Algorithm {
    /// The name before the colon.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha384 => 96,
            Self::Sha512 => 128,
        }
    }

    fn implementation(self) -> &'static aws_lc_rs::digest::Algorithm {
        match self {
            Self::Sha256 => &aws_lc_rs::digest::SHA256,
            Self::Sha384 => &aws_lc_rs::digest::SHA384,
            Self::Sha512 => &aws_lc_rs::digest::SHA512,
        }
    }
}

/// A content digest, `algorithm:hex`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    hex: String,
}

impl Digest {
    /// Reads `algorithm:hex`: a known algorithm, lower-case digits, the exact length (rule R-6).
    pub fn parse(text: &str) -> Option<Self> {
        let (name, hex) = text.split_once(':')?;
        let algorithm = [Algorithm::Sha256, Algorithm::Sha384, Algorithm::Sha512]
            .into_iter()
            .find(|a| a.name() == name)?;
        (hex.len() == algorithm.hex_len() && is_lower_hex(hex))
            .then(|| Self { algorithm, hex: hex.to_owned() })
    }

    /// The digest of `bytes`.
    pub fn compute(algorithm: Algorithm, bytes: &[u8]) -> Self {
        Self::of_value(algorithm, aws_lc_rs::digest::digest(algorithm.implementation(), bytes).as_ref())
    }

    fn of_value(algorithm: Algorithm, value: &[u8]) -> Self {
        Self { algorithm, hex: hex(value) }
    }

    /// The SHA-256 digest of all that is left to read, however much that is.
    pub fn sha256_of(mut reader: impl io::Read) -> io::Result<Self> {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        let mut buffer = vec![0; 64 << 10];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => context.update(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self::of_value(Algorithm::Sha256, context.finish().as_ref()))
    }

    /// The SHA-256 digest of `bytes`.
    pub fn sha256(bytes: &[u8]) -> Self {
        Self::compute(Algorithm::Sha256, bytes)
    }

    /// Whether `bytes` hash to this digest, in its own algorithm.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        Self::compute(self.algorithm, bytes) == *self
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The value in lower-case hexadecimal.
    pub fn hex(&self) -> &str {
        &self.hex
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

/// Whether every character is `0-9` or `a-f`.
pub fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Lower-case hexadecimal digits, two for each byte.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect()
}

/// The bytes of an even number of hexadecimal digits; what is none is passed over, so look first.
pub fn unhex(text: &str) -> Vec<u8> {
    let nibbles: Vec<u8> = text.chars().filter_map(|c| u8::try_from(c.to_digit(16)?).ok()).collect();
    nibbles.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, nibble| (byte << 4) | nibble)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_accepts_only_the_registered_form() {
        let hex = "a".repeat(64);
        for (text, ok) in [
            (format!("sha256:{hex}"), true),
            (format!("sha256:{}", "A".repeat(64)), false),
            (format!("sha256:{}", "a".repeat(63)), false),
            (format!("sha384:{}", "a".repeat(96)), true),
            (format!("sha512:{}", "a".repeat(128)), true),
            (format!("md5:{}", "a".repeat(32)), false),
            (format!("SHA256:{hex}"), false),
            (hex.clone(), false),
            (String::new(), false),
        ] {
            assert_eq!(Digest::parse(&text).map(|d| d.to_string()), ok.then_some(text.clone()), "{text}");
        }
    }

    #[test]
    fn the_empty_string_has_its_known_digest() {
        let digest = Digest::sha256(b"");
        assert_eq!(digest.hex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert!(digest.matches(b"") && !digest.matches(b"x"));
    }
}
