//! How a setting's value is read from a file, written back, and described to an editor.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use jiff::civil::Time as ClockTime;
use jiff::tz::TimeZone;
use serde::de::{self, Deserialize, DeserializeOwned, Deserializer, Unexpected, Visitor};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::events::EventTarget;
use super::privacy::Privacy;
use super::values::{parse_duration, parse_net, parse_never_block};
use crate::config::{LockedDials, Mode, NeverBlock, Reply, Strictness};
use crate::gateway::backend::Backend;
use crate::gateway::queue::{QueueReader, WhenOverloaded};
use crate::gateway::rules::{OpenPort, WhenDown};
use crate::{HardwareAddress, InterfaceName};

/// A value that stands in a configuration file.
pub trait Setting: Clone + DeserializeOwned + Serialize {
    /// The JSON schema of how it is written.
    fn schema() -> Value;
}

/// A value written as text that a parser of our own reads.
pub trait Textual: Clone + fmt::Debug + PartialEq + Sized {
    /// What is expected, as in "expected a network as text".
    const EXPECTED: &'static str;

    /// Reads it.
    ///
    /// # Errors
    /// In words that say what to write instead.
    fn read(text: &str) -> Result<Self, String>;

    /// Writes it as it can be read again.
    fn write(&self) -> String;

    /// What a number stands for, where one may be written.
    #[must_use]
    fn count(_number: u64) -> Option<Self> {
        None
    }
}

/// A [`Textual`] value in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text<T>(pub T);

impl<'de, T: Textual> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(Written(std::marker::PhantomData))
            .map(Self)
    }
}

impl<T: Textual> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.write())
    }
}

impl<T: Textual> Setting for Text<T> {
    fn schema() -> Value {
        let types = match T::count(0) {
            Some(_) => json!(["string", "integer"]),
            None => json!("string"),
        };
        json!({ "type": types, "description": T::EXPECTED })
    }
}

/// Reads a value while its place in the file is still known: an error from a visitor names it.
struct Written<T>(std::marker::PhantomData<T>);

impl<T: Textual> Visitor<'_> for Written<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(T::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        T::read(text).map_err(|slip| E::custom(format_args!("\"{text}\": {slip}")))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        let unexpected = || E::invalid_type(Unexpected::Signed(number), &self);
        let count = u64::try_from(number).map_err(|_| unexpected())?;
        T::count(count).ok_or_else(unexpected)
    }
}

impl Textual for IpNet {
    const EXPECTED: &'static str = "a network as text";

    fn read(text: &str) -> Result<Self, String> {
        parse_net(text)
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Textual for InterfaceName {
    const EXPECTED: &'static str = "an interface's name as text";

    fn read(text: &str) -> Result<Self, String> {
        text.parse()
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Textual for HardwareAddress {
    const EXPECTED: &'static str = "a hardware address as text";

    fn read(text: &str) -> Result<Self, String> {
        text.parse()
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Textual for NeverBlock {
    const EXPECTED: &'static str = "an address or network as text";

    fn read(text: &str) -> Result<Self, String> {
        parse_never_block(text)
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Textual for Duration {
    const EXPECTED: &'static str = "a duration: \"120s\", \"5m\" or \"2h\", or 0 for none";

    fn read(text: &str) -> Result<Self, String> {
        parse_duration(text)
    }

    fn write(&self) -> String {
        humantime::format_duration(*self).to_string()
    }

    fn count(number: u64) -> Option<Self> {
        Some(Self::from_secs(number))
    }
}

impl Textual for OpenPort {
    const EXPECTED: &'static str = "a port as text: \"tcp/443\" or \"udp/5060\"";

    fn read(text: &str) -> Result<Self, String> {
        // The error repeats the text, and so does whoever shows this one.
        let remedy = "write the protocol and the number, as in tcp/443 or udp/5060";
        text.parse().map_err(|_| format!("not a port: {remedy}"))
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

/// A back end, or the best that works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendChoice(pub Option<Backend>);

impl Textual for BackendChoice {
    const EXPECTED: &'static str = "a back end as text: \"auto\", \"nft\", \"iptables-nft\" or \
        \"iptables-legacy\"";

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self(None)),
            name => name.parse().map(|backend| Self(Some(backend))),
        }
    }

    fn write(&self) -> String {
        self.0.map_or("auto", Backend::name).to_owned()
    }
}

impl Textual for QueueReader {
    const EXPECTED: &'static str = "a reader as text: \"netlink\" or \"nfq\"";

    fn read(text: &str) -> Result<Self, String> {
        text.parse()
    }

    fn write(&self) -> String {
        self.name().to_owned()
    }
}

impl Textual for EventTarget {
    const EXPECTED: &'static str = "a file's path as text, or \"-\" for standard output";

    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|never| match never {})
    }

    fn write(&self) -> String {
        match self {
            Self::Stdout => "-".to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

impl Textual for PathBuf {
    const EXPECTED: &'static str = "a file's path as text";

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("not a path: it is empty".to_owned());
        }
        Ok(text.into())
    }

    fn write(&self) -> String {
        self.display().to_string()
    }
}

/// A duration that the kernel's rules can be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WholeSeconds(pub Duration);

impl Textual for WholeSeconds {
    const EXPECTED: &'static str = "a duration in whole seconds: \"1s\" or \"1m\", or 0 for none";

    fn read(text: &str) -> Result<Self, String> {
        let duration = Duration::read(text)?;
        if duration.subsec_nanos() == 0 {
            Ok(Self(duration))
        } else {
            Err("not a whole number of seconds".to_owned())
        }
    }

    fn write(&self) -> String {
        self.0.write()
    }

    fn count(number: u64) -> Option<Self> {
        Duration::count(number).map(Self)
    }
}

/// A directory, or that there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OptionalDirectory(pub Option<PathBuf>);

impl Textual for OptionalDirectory {
    const EXPECTED: &'static str = "a directory's path as text, or \"\" for none";

    fn read(text: &str) -> Result<Self, String> {
        let path = (!text.is_empty()).then(|| PathBuf::from(text));
        match path {
            Some(path) if path.is_relative() => {
                Err("not a whole path: write one that begins with /".to_owned())
            }
            path => Ok(Self(path)),
        }
    }

    fn write(&self) -> String {
        let path = self.0.as_ref();
        path.map_or(String::new(), |path| path.display().to_string())
    }
}

/// Who is told of clients that were locked, if anybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookUrl(pub Option<String>);

impl Textual for WebhookUrl {
    const EXPECTED: &'static str =
        "\"off\", or an address as text that begins with https:// or http://";

    fn read(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        let mut schemes = ["https://", "http://"].iter();
        match schemes.find_map(|scheme| text.strip_prefix(scheme)) {
            Some(rest) if names_a_host(rest) && text.chars().all(|it| it.is_ascii_graphic()) => {
                Ok(Self(Some(text.to_owned())))
            }
            _ => Err("write off, or an address such as https://example.net/hook".to_owned()),
        }
    }

    fn write(&self) -> String {
        self.0.clone().unwrap_or_else(|| "off".to_owned())
    }
}

/// Whether what comes behind the scheme begins with a host, and a port if it names one: nobody would see
/// before the first delivery that it does not.
fn names_a_host(rest: &str) -> bool {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let place = authority.rsplit('@').next().unwrap_or_default();
    let (is_host, behind) = match place.strip_prefix('[') {
        Some(bracketed) => match bracketed.split_once(']') {
            Some((host, behind)) => (host.parse::<Ipv6Addr>().is_ok(), behind),
            None => (false, ""),
        },
        None => {
            let (host, behind) = place.split_at(place.find(':').unwrap_or(place.len()));
            let is_letter = |it: char| it.is_ascii_alphanumeric() || "-._".contains(it);
            (!host.is_empty() && host.chars().all(is_letter), behind)
        }
    };
    let is_port = |text: &str| text.parse::<u16>().is_ok_and(|port| port > 0);
    is_host && (behind.is_empty() || behind.strip_prefix(':').is_some_and(is_port))
}

/// Where a secret is kept, if there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretFile(pub Option<PathBuf>);

impl Textual for SecretFile {
    const EXPECTED: &'static str = "a file's path as text, or \"\" for none";

    fn read(text: &str) -> Result<Self, String> {
        OptionalDirectory::read(text).map(|OptionalDirectory(path)| Self(path))
    }

    fn write(&self) -> String {
        OptionalDirectory(self.0.clone()).write()
    }
}

/// Where numbers and the status page are shown: they name inside hosts, so nowhere beyond this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HttpListen {
    /// Nowhere.
    #[default]
    Off,
    /// To everybody on this machine.
    Tcp(SocketAddr),
    /// To whom a socket's permissions let in.
    Unix(PathBuf),
}

impl Textual for HttpListen {
    const EXPECTED: &'static str = "\"off\", an address and port of this machine's own as text, \
        or a socket's path";

    fn read(text: &str) -> Result<Self, String> {
        match text.parse::<SocketAddr>() {
            _ if text == "off" => Ok(Self::Off),
            _ if text.starts_with('/') => Ok(Self::Unix(text.into())),
            Ok(address) if address.ip().is_loopback() => Ok(Self::Tcp(address)),
            Ok(_) => Err(
                "would be seen by other machines: write 127.0.0.1 and a port, and \
                put a server with access control before it"
                    .to_owned(),
            ),
            Err(_) => Err("write off, 127.0.0.1:9477, [::1]:9477 or a path".to_owned()),
        }
    }

    fn write(&self) -> String {
        match self {
            Self::Off => "off".to_owned(),
            Self::Tcp(address) => address.to_string(),
            Self::Unix(path) => path.display().to_string(),
        }
    }
}

impl Textual for WhenDown {
    const EXPECTED: &'static str = "\"drop\" or \"pass\"";

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "drop" => Ok(Self::Drop),
            "pass" => Ok(Self::Pass),
            _ => Err("write drop or pass".to_owned()),
        }
    }

    fn write(&self) -> String {
        match self {
            Self::Drop => "drop",
            Self::Pass => "pass",
        }
        .to_owned()
    }
}

impl Textual for WhenOverloaded {
    const EXPECTED: &'static str = "\"drop\" or \"pass\"";

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "drop" => Ok(Self::Drop),
            "pass" => Ok(Self::Pass),
            _ => Err("write drop or pass".to_owned()),
        }
    }

    fn write(&self) -> String {
        match self {
            Self::Drop => "drop",
            Self::Pass => "pass",
        }
        .to_owned()
    }
}

impl Textual for TimeZone {
    const EXPECTED: &'static str = "a time zone's name as text: \"Europe/Berlin\"";

    fn read(text: &str) -> Result<Self, String> {
        Self::get(text).map_err(|_| {
            "no such time zone here: write a name of /usr/share/zoneinfo, as Europe/Berlin"
                .to_owned()
        })
    }

    fn write(&self) -> String {
        self.iana_name().unwrap_or("UTC").to_owned()
    }
}

impl Textual for ClockTime {
    const EXPECTED: &'static str = "a time of day as text: \"08:00\"";

    fn read(text: &str) -> Result<Self, String> {
        let digits = |text: &str| (text.len() == 2).then(|| text.parse::<i8>().ok()).flatten();
        let parts = text
            .split_once(':')
            .map(|(hour, minute)| (digits(hour), digits(minute)));
        match parts {
            Some((Some(24), Some(0))) => Ok(Self::MIN),
            Some((Some(hour), Some(minute))) => {
                Self::new(hour, minute, 0, 0).map_err(|_| NOT_A_TIME.to_owned())
            }
            _ => Err(NOT_A_TIME.to_owned()),
        }
    }

    fn write(&self) -> String {
        format!("{:02}:{:02}", self.hour(), self.minute())
    }
}

const NOT_A_TIME: &str = "not a time of day: write hours and minutes, 00:00 to 24:00";

impl Setting for bool {
    fn schema() -> Value {
        json!({ "type": "boolean" })
    }
}

impl Setting for u8 {
    fn schema() -> Value {
        json!({ "type": "integer", "minimum": 0, "maximum": Self::MAX })
    }
}

impl Setting for u16 {
    fn schema() -> Value {
        json!({ "type": "integer", "minimum": 0, "maximum": Self::MAX })
    }
}

impl Setting for u32 {
    fn schema() -> Value {
        json!({ "type": "integer", "minimum": 0, "maximum": Self::MAX })
    }
}

impl<T: Setting> Setting for Vec<T> {
    fn schema() -> Value {
        json!({ "type": "array", "items": T::schema() })
    }
}

/// Declares how closed sets of names are described, from all their values.
macro_rules! named {
    ($($type:ty: $($value:expr),+;)+) => {
        $(impl Setting for $type {
            fn schema() -> Value {
                json!({ "enum": [$($value),+] })
            }
        })+
    };
}

named! {
    Mode: Mode::Enforce, Mode::Monitor, Mode::Off;
    Strictness: Strictness::Precise, Strictness::Strict;
    LockedDials: LockedDials::Drop, LockedDials::Watch;
    Reply: Reply::Pong, Reply::Pong2, Reply::Other, Reply::None;
    Privacy: Privacy::Full, Privacy::Truncate, Privacy::HashDaily;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read_again() {
        fn assert_same<T: Textual>(texts: &[&str]) {
            for text in texts {
                let value = T::read(text).expect("it is documented");
                assert_eq!(T::read(&value.write()), Ok(value), "{text}");
            }
        }
        assert_same::<IpNet>(&["10.77.0.0/16", "10.77.1.1", "2001:db8::/32"]);
        assert_same::<InterfaceName>(&["lan0", "eth0.17"]);
        assert_same::<HardwareAddress>(&["02:00:5e:10:00:01"]);
        assert_same::<NeverBlock>(&["192.0.2.7:1214", "192.0.2.7", "192.0.2.0/24"]);
        assert_same::<Duration>(&["0", "120s", "2h 5m"]);
        assert_same::<OpenPort>(&["tcp/443"]);
        assert_same::<BackendChoice>(&["auto", "nft", "iptables-legacy"]);
        assert_same::<EventTarget>(&["-", "/var/log/ftwall/events.json"]);
        assert_same::<HttpListen>(&[
            "off",
            "127.0.0.1:9477",
            "[::1]:9477",
            "/run/ftwall/http.sock",
        ]);
        assert_same::<OptionalDirectory>(&["", "/var/lib/ftwall"]);
        assert_same::<WebhookUrl>(&[
            "off",
            "https://example.net/hook",
            "http://user:word@192.0.2.7:8080",
            "http://[2001:db8::1]:8080/?a=b",
        ]);
        assert_same::<SecretFile>(&["", "/etc/ftwall/webhook.secret"]);
        assert_same::<WhenDown>(&["drop", "pass"]);
        assert_same::<WhenOverloaded>(&["drop", "pass"]);
        assert_same::<TimeZone>(&["UTC", "Europe/Berlin"]);
        assert_same::<ClockTime>(&["00:00", "08:30", "24:00"]);
    }

    #[test]
    fn an_address_that_nobody_could_be_told_at_is_refused() {
        for text in [
            "example.net",
            "ftp://example.net",
            "https://",
            "https://:443",
            "https://example.net:",
            "https://example.net:0",
            "https://example.net:65536",
            "http://2001:db8::1/",
            "http://[2001:db8::1",
            "http://[2001:db8::1]8080",
            "http://[example.net]/",
            "https://example.net/my hook",
        ] {
            assert!(WebhookUrl::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_status_page_is_shown_to_no_other_machine() {
        for text in ["0.0.0.0:9477", "192.0.2.7:9477", "[::]:9477"] {
            let slip = HttpListen::read(text).expect_err("others would see it");
            assert!(
                slip.starts_with("would be seen by other machines"),
                "{slip}"
            );
        }
        assert!(HttpListen::read("9477").is_err_and(|slip| slip.contains("127.0.0.1:9477")));
    }

    #[test]
    fn a_time_of_day_has_two_digits_each() {
        for text in [
            "8:00", "08:0", "25:00", "24:01", "08:60", "-1:00", "noon", "",
        ] {
            assert_eq!(ClockTime::read(text), Err(NOT_A_TIME.to_owned()), "{text}");
        }
    }
}
