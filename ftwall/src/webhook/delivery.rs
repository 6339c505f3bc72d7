//! One delivery: a signed POST, and what went wrong with it.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use ring::hmac;
use thiserror::Error;

/// How long a receiver may take in all.
const LONGEST_ANSWER: Duration = Duration::from_secs(10);
/// As GitHub's webhooks name it: receivers of many makes know it by its form.
const SIGNATURE: &str = "X-Ftwall-Signature-256";

/// Why a delivery was not taken.
#[derive(Debug, Error)]
pub enum DeliveryError {
    /// The receiver has answered with this code.
    #[error("it answers {0}")]
    Refused(u16),
    /// It could not be reached or did not answer.
    #[error(transparent)]
    Unreachable(Box<ureq::Error>),
    /// Nobody is to be told any more.
    #[error("it was turned off")]
    Unwanted,
}

impl DeliveryError {
    /// Whether the same may be taken later.
    pub(super) const fn may_pass(&self) -> bool {
        match self {
            DeliveryError::Refused(code) => *code >= 500 || *code == 408 || *code == 429,
            DeliveryError::Unreachable(_) => true,
            DeliveryError::Unwanted => false,
        }
    }
}

/// Who is told, and the secret that is shared with it.
#[derive(Debug)]
pub struct Receiver {
    agent: ureq::Agent,
    url: String,
    secret: Option<hmac::Key>,
}

impl Receiver {
    /// Whom `url` names, trusted by the roots that browsers trust, with the secret that a file holds, if any;
    /// a line's end there does not count.
    ///
    /// # Errors
    /// When the file cannot be read or holds nothing.
    pub fn new(url: &str, secret_file: Option<&Path>) -> io::Result<Receiver> {
        let secret = secret_file.map(read_secret).transpose()?;
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(LONGEST_ANSWER))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .build();
        Ok(Receiver {
            agent: config.into(),
            url: url.to_owned(),
            secret,
        })
    }

    /// Delivers `body`, once.
    ///
    /// # Errors
    /// Why it was not taken.
    pub(super) fn post(&self, body: &[u8]) -> Result<(), DeliveryError> {
        let mut request = self
            .agent
            .post(&self.url)
            .header("Content-Type", "application/json");
        if let Some(key) = &self.secret {
            request = request.header(SIGNATURE, signature(key, body));
        }
        let answer = request.send(body);
        let answer = answer.map_err(|error| DeliveryError::Unreachable(Box::new(error)))?;
        match answer.status() {
            taken if taken.is_success() => Ok(()),
            refused => Err(DeliveryError::Refused(refused.as_u16())),
        }
    }
}

fn read_secret(path: &Path) -> io::Result<hmac::Key> {
    let text = fs::read(path)?;
    let secret = text.trim_ascii_end();
    if secret.is_empty() {
        return Err(io::Error::other("it is empty"));
    }
    Ok(hmac::Key::new(hmac::HMAC_SHA256, secret))
}

fn signature(key: &hmac::Key, body: &[u8]) -> String {
    let mut text = "sha256=".to_owned();
    for octet in hmac::sign(key, body).as_ref() {
        let _ = write!(text, "{octet:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test case 2.
    #[test]
    fn a_signature_is_that_of_the_standard() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"Jefe");
        assert_eq!(
            signature(&key, b"what do ya want for nothing?"),
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn what_was_refused_for_good_is_not_tried_again() {
        let may_pass = |code| DeliveryError::Refused(code).may_pass();
        assert!(may_pass(503) && may_pass(429));
        assert!(!may_pass(404) && !may_pass(301));
    }
}
