//! The rate limiter: a bucket of tokens for every client address, as in the reference.
//!
//! A bucket holds `size` tokens and gets `tps` new ones a second; a request takes one. Addresses on the white-list take
//! none; an unspecified address on it (`0.0.0.0/0`) stands for everybody. Addresses of IPv6 share the bucket of their
//! /64 network, which is what one client has.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use abs_config::RateSettings;
use ipnet::IpNet;

/// Clients that are remembered at once.
const CLIENTS: usize = 65_536;

/// The buckets of all clients.
#[derive(Debug)]
pub struct RateLimiter {
    tps: f64,
    size: f64,
    white_list: Vec<IpNet>,
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl RateLimiter {
    /// A limiter with full buckets.
    pub fn new(settings: &RateSettings) -> Self {
        Self {
            tps: f64::from(settings.tps.get()),
            size: f64::from(settings.size.get()),
            white_list: settings.white_list.clone(),
            buckets: Mutex::default(),
        }
    }

    /// Lets a request of `client` in at the time `now`.
    ///
    /// # Errors
    /// How long the client has to wait.
    pub fn admit(&self, client: IpAddr, now: Instant) -> Result<(), Duration> {
        let client = client.to_canonical();
        let exempt = |net: &IpNet| net.addr().is_unspecified() || net.contains(&client);
        if self.white_list.iter().any(exempt) {
            return Ok(());
        }
        let full = Bucket { tokens: self.size, at: now };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let key = network(client);
        if buckets.len() >= CLIENTS && !buckets.contains_key(&key) {
            buckets.retain(|_, bucket| self.tokens(*bucket, now) < self.size);
            if buckets.len() >= CLIENTS {
                buckets.clear();
            }
        }
        let bucket = buckets.entry(key).or_insert(full);
        let tokens = self.tokens(*bucket, now);
        if tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - tokens) / self.tps));
        }
        *bucket = Bucket { tokens: tokens - 1.0, at: now };
        Ok(())
    }

    /// The tokens in a bucket at the time `now`.
    fn tokens(&self, bucket: Bucket, now: Instant) -> f64 {
        let seconds = now.saturating_duration_since(bucket.at).as_secs_f64();
        (bucket.tokens + seconds * self.tps).min(self.size)
    }
}

/// What shares a bucket with `client`.
fn network(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn limiter(tps: u32, size: u32, white_list: &[&str]) -> RateLimiter {
        let white_list = white_list.iter().map(|net| net.parse().unwrap()).collect();
        let [tps, size] = [tps, size].map(|number| NonZeroU32::new(number).unwrap());
        RateLimiter::new(&RateSettings { tps, size, white_list })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_client_has_a_burst_and_then_its_rate() {
        let limiter = limiter(2, 3, &[]);
        let start = Instant::now();
        for _ in 0..3 {
            limiter.admit(ip("10.0.0.1"), start).unwrap();
        }
        assert_eq!(limiter.admit(ip("10.0.0.1"), start), Err(Duration::from_millis(500)));
        assert_eq!(limiter.admit(ip("::ffff:10.0.0.1"), start), Err(Duration::from_millis(500)));
        limiter.admit(ip("10.0.0.2"), start).unwrap();
        limiter.admit(ip("10.0.0.1"), start + Duration::from_millis(500)).unwrap();
        assert!(limiter.admit(ip("10.0.0.1"), start + Duration::from_millis(500)).is_err());
        // A long pause fills the bucket, and no more than fills it.
        let later = start + Duration::from_hours(1);
        for _ in 0..3 {
            limiter.admit(ip("10.0.0.1"), later).unwrap();
        }
        assert!(limiter.admit(ip("10.0.0.1"), later).is_err());
    }

    #[test]
    fn a_network_of_version_6_is_one_client() {
        let limiter = limiter(1, 1, &[]);
        let now = Instant::now();
        limiter.admit(ip("2001:db8::1"), now).unwrap();
        assert!(limiter.admit(ip("2001:db8::2:3:4:5"), now).is_err());
        limiter.admit(ip("2001:db8:0:1::1"), now).unwrap();
    }

    #[test]
    fn the_white_list_is_exempt() {
        let now = Instant::now();
        let some = limiter(1, 1, &["10.1.0.0/16", "192.168.7.7/32"]);
        for _ in 0..5 {
            some.admit(ip("10.1.2.3"), now).unwrap();
            some.admit(ip("192.168.7.7"), now).unwrap();
        }
        some.admit(ip("10.2.0.1"), now).unwrap();
        assert!(some.admit(ip("10.2.0.1"), now).is_err());
        let all = limiter(1, 1, &["0.0.0.0/0"]);
        for _ in 0..5 {
            all.admit(ip("2001:db8::1"), now).unwrap();
        }
    }

    #[test]
    fn many_clients_do_not_fill_the_memory() {
        let limiter = limiter(1, 2, &[]);
        let now = Instant::now();
        for i in 0..(CLIENTS as u32 + 10) {
            limiter.admit(IpAddr::from(i.to_be_bytes()), now).unwrap();
        }
        assert!(limiter.buckets.lock().unwrap().len() <= CLIENTS);
    }
}
