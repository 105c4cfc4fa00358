//! [`Patience`]: how often, and after what time, a server that cannot answer now is asked again (rule H-5).

use std::time::{Duration, SystemTime};

use aws_lc_rs::rand;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use tokio::time::Instant;

/// The attempts at one request.
pub(super) struct Patience {
    deadline: Instant,
    attempts: u32,
}

impl Patience {
    pub(super) fn until(deadline: Instant) -> Self {
        Self { deadline, attempts: 0 }
    }

    /// How long to wait before the request is made once more; nothing if this answer is the last.
    ///
    /// An answer is better than none: what would end after the deadline does not begin.
    pub(super) fn delay(&mut self, status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
        let delay = self.pause(status, headers)?;
        let delay = delay.saturating_add(jitter(delay));
        Instant::now().checked_add(delay).filter(|end| *end < self.deadline).map(|_| delay)
    }

    fn pause(&mut self, status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
        self.attempts = self.attempts.saturating_add(1);
        let (most, first) = match status.as_u16() {
            429 => (BUSY_ATTEMPTS, BUSY_DELAY),
            500 | 502 | 503 | 504 => (FAILED_ATTEMPTS, FAILED_DELAY),
            _ => return None,
        };
        if self.attempts >= most {
            return None;
        }
        let doubled = first.saturating_mul(1 << self.attempts.saturating_sub(1));
        Some(retry_after(headers, SystemTime::now()).unwrap_or(doubled).min(LONGEST_DELAY))
    }
}

/// RFC 9110, section 10.2.3: seconds or a date; one that has passed does not count.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    httpdate::parse_http_date(text).ok()?.duration_since(now).ok().filter(|delay| !delay.is_zero())
}

/// Up to a quarter more, so that hosts that were turned away together do not come back together.
fn jitter(delay: Duration) -> Duration {
    let mut byte = [0];
    match rand::fill(&mut byte) {
        Ok(()) => delay.saturating_mul(byte.map(u32::from).into_iter().sum()) / 1024,
        Err(_) => Duration::ZERO,
    }
}

/// Rule H-5.
const BUSY_ATTEMPTS: u32 = 5;
const BUSY_DELAY: Duration = Duration::from_secs(2);
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// Beyond the reference, which leaves it to podman to begin anew: what is gone in a second is waited for.
const FAILED_ATTEMPTS: u32 = 3;
const FAILED_DELAY: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    fn headers(retry_after: Option<&str>) -> HeaderMap {
        retry_after.map(|text| (RETRY_AFTER, HeaderValue::from_str(text).unwrap())).into_iter().collect()
    }

    /// The pauses in milliseconds, until there is none.
    fn pauses(status: u16, after: Option<&str>) -> Vec<u128> {
        let mut patience = Patience::until(Instant::now());
        let status = StatusCode::from_u16(status).unwrap();
        let next = || patience.pause(status, &headers(after));
        std::iter::from_fn(next).take(20).map(|pause| pause.as_millis()).collect()
    }

    /// Rule H-5.
    #[test]
    fn a_busy_server_is_asked_five_times_and_a_failed_one_three_times() {
        let doubling = [2_000, 4_000, 8_000, 16_000];
        for (status, after, wanted) in [
            (429, None, doubling.to_vec()),
            (429, Some("7"), vec![7_000; 4]),
            (429, Some("0"), vec![0; 4]),
            (429, Some("100000"), vec![60_000; 4]),
            (429, Some("99999999999999999999999"), doubling.to_vec()),
            (429, Some("-1"), doubling.to_vec()),
            (429, Some("soon"), doubling.to_vec()),
            (429, Some("Thu, 01 Jan 1970 00:00:00 GMT"), doubling.to_vec()),
            (429, Some("Tue, 01 Jan 2999 00:00:00 GMT"), vec![60_000; 4]),
            (503, None, vec![250, 500]),
            (500, Some("9"), vec![9_000; 2]),
        ] {
            assert_eq!(pauses(status, after), wanted, "{status} {after:?}");
        }
        for status in [200, 301, 400, 401, 403, 404, 408, 501, 505] {
            assert!(pauses(status, Some("1")).is_empty(), "{status}");
        }
    }

    #[test]
    fn nobody_waits_beyond_the_deadline() {
        for (seconds, waits) in [(20, false), (100, true)] {
            let mut patience = Patience::until(Instant::now() + Duration::from_secs(seconds));
            let delay = patience.delay(StatusCode::TOO_MANY_REQUESTS, &headers(Some("30")));
            assert_eq!(delay.is_some(), waits, "{seconds}");
        }
    }

    #[test]
    fn jitter_adds_less_than_a_quarter() {
        let delay = Duration::from_secs(100);
        let found: Vec<Duration> = (0..200).map(|_| jitter(delay)).collect();
        assert!(found.iter().all(|extra| *extra < delay / 4), "{found:?}");
        assert!(found.iter().any(|extra| *extra > Duration::from_secs(1)));
    }
}
