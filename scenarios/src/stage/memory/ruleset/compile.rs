//! From nft's JSON (libnftables-json(5)) to what the interpreter evaluates.

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::{Map, Value};

use super::expression::{
    Budgets, Comparison, FAMILY_IPV4, Load, MarkChange, STATE_ESTABLISHED, STATE_INVALID,
    STATE_NEW, Source, Statement, Test,
};
use super::set::{Change, Content, Field, Key, LONGEST_KEY, Set};
use super::view::{Base, TCP, UDP};
use super::{Chain, Rule, RulesetError};

/// One command, its names resolved.
#[derive(Debug)]
pub(super) enum Command {
    AddTable,
    FlushTable,
    DeleteTable,
    /// About packets that nobody forwards: the gateway's own.
    Elsewhere,
    AddChain(Chain),
    FlushChain(usize),
    AddRule {
        chain: usize,
        rule: Rule,
    },
    AddSet(Set),
    FlushSet(usize),
    ChangeElements {
        set: usize,
        changes: Vec<Change>,
    },
}

/// Whether a command only adds elements to sets or deletes them.
pub(super) fn concerns_elements(command: &Value) -> bool {
    parts(command).is_ok_and(|(_, kind, _)| kind == "element")
}

/// Reads one command.
pub(super) fn command(
    command: &Value,
    chains: &[Chain],
    sets: &[Set],
) -> Result<Command, RulesetError> {
    let (verb, kind, object) = parts(command)?;
    let name = || text(object, "name");
    Ok(match (verb, kind) {
        ("add", "table") => Command::AddTable,
        ("flush", "table") => Command::FlushTable,
        ("delete", "table") => Command::DeleteTable,
        ("add", "chain") => Command::AddChain(chain(object)?),
        ("flush", "chain") => Command::FlushChain(chain_number(chains, name()?)?),
        ("add", "rule") => {
            let chain = chain_number(chains, text(object, "chain")?)?;
            if chains[chain].is_elsewhere {
                Command::Elsewhere
            } else {
                let rule = rule(object, chains, sets)?;
                Command::AddRule { chain, rule }
            }
        }
        ("add", "set") => Command::AddSet(new_set(object)?),
        ("flush", "set") => Command::FlushSet(set_number(sets, name()?)?),
        ("add" | "delete", "element") => {
            let set = set_number(sets, name()?)?;
            let elements = list(object, "elem")?.iter();
            let changes = elements.map(|element| change(verb, element, &sets[set]));
            let changes = changes.collect::<Result<_, _>>()?;
            Command::ChangeElements { set, changes }
        }
        _ => return Err(unknown("the command", command)),
    })
}

/// The error of a name that leads nowhere.
pub(super) fn missing(kind: &'static str, name: &str) -> RulesetError {
    let name = name.to_owned();
    RulesetError::Missing { kind, name }
}

fn unknown(what: &'static str, value: &Value) -> RulesetError {
    let text = value.to_string();
    RulesetError::Unknown { what, text }
}

/// Verb, kind and object of a command.
fn parts(command: &Value) -> Result<(&str, &str, &Map<String, Value>), RulesetError> {
    let (verb, what) = tagged(command).ok_or_else(|| unknown("the command", command))?;
    let (kind, object) = tagged(what).ok_or_else(|| unknown("the command", command))?;
    let object = object.as_object();
    Ok((
        verb,
        kind,
        object.ok_or_else(|| unknown("the command", command))?,
    ))
}

/// The only key of an object, and its value.
fn tagged(value: &Value) -> Option<(&str, &Value)> {
    let object = value.as_object().filter(|object| object.len() == 1)?;
    object
        .iter()
        .next()
        .map(|(key, value)| (key.as_str(), value))
}

fn text<'a>(object: &'a Map<String, Value>, key: &'static str) -> Result<&'a str, RulesetError> {
    let found = object.get(key).and_then(Value::as_str);
    found.ok_or_else(|| missing("text named", key))
}

fn list<'a>(
    object: &'a Map<String, Value>,
    key: &'static str,
) -> Result<&'a [Value], RulesetError> {
    let found = object.get(key).and_then(Value::as_array);
    found
        .map(Vec::as_slice)
        .ok_or_else(|| missing("list named", key))
}

fn chain_number(chains: &[Chain], name: &str) -> Result<usize, RulesetError> {
    let found = chains.iter().position(|chain| chain.name == name);
    found.ok_or_else(|| missing("chain", name))
}

fn set_number(sets: &[Set], name: &str) -> Result<usize, RulesetError> {
    let found = sets.iter().position(|set| set.name == name);
    found.ok_or_else(|| missing("set", name))
}

fn chain(object: &Map<String, Value>) -> Result<Chain, RulesetError> {
    let is_elsewhere = object.get("hook").is_some_and(|hook| hook == "output");
    let priority = match object.get("hook").map(Value::as_str) {
        None | Some(Some("output")) => None,
        Some(Some("forward")) if object.get("type").is_some_and(|kind| kind == "filter") => {
            let priority = object.get("prio").and_then(Value::as_i64);
            Some(priority.ok_or_else(|| missing("number named", "prio"))?)
        }
        Some(_) => return Err(unknown("the hook", &Value::Object(object.clone()))),
    };
    Ok(Chain {
        name: text(object, "name")?.to_owned(),
        priority,
        is_elsewhere,
        drops_by_policy: object.get("policy").is_some_and(|policy| policy == "drop"),
        rules: Vec::new(),
    })
}

fn new_set(object: &Map<String, Value>) -> Result<Set, RulesetError> {
    let types = object.get("type").unwrap_or(&Value::Null);
    let fields: Vec<Field> = match types {
        Value::Array(types) => types.iter().map(field_type).collect::<Result<_, _>>()?,
        single => vec![field_type(single)?],
    };
    if fields.len() > LONGEST_KEY {
        return Err(unknown("a key of so many fields", types));
    }
    let flags = object.get("flags").and_then(Value::as_array);
    let flags: Vec<_> = flags
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let content = match flags[..] {
        ["interval"] if fields == [Field::Address] => Content::Networks(Vec::new()),
        [] | ["timeout"] => Content::Hashed {
            elements: Default::default(),
            size: object
                .get("size")
                .and_then(Value::as_u64)
                .and_then(|size| usize::try_from(size).ok()),
        },
        _ => return Err(unknown("the kind of set", &Value::Object(object.clone()))),
    };
    Ok(Set {
        name: text(object, "name")?.to_owned(),
        fields,
        content,
    })
}

fn field_type(name: &Value) -> Result<Field, RulesetError> {
    match name.as_str() {
        Some("ipv4_addr") => Ok(Field::Address),
        Some("inet_proto") => Ok(Field::Protocol),
        Some("inet_service") => Ok(Field::Port),
        Some("mark") => Ok(Field::Mark),
        _ => Err(unknown("the type", name)),
    }
}

fn change(verb: &str, element: &Value, set: &Set) -> Result<Change, RulesetError> {
    if let Some((first, last)) = network(element)? {
        return Ok(Change::AddNetwork(first, last));
    }
    let (element, stays) = match tagged(element) {
        Some(("elem", inner)) => {
            let seconds = inner["timeout"].as_u64();
            let seconds = seconds.ok_or_else(|| unknown("the element", element))?;
            (&inner["val"], Some(Duration::from_secs(seconds)))
        }
        _ => (element, None),
    };
    let key = key(element, &set.fields)?;
    if matches!(set.content, Content::Networks(_)) && verb == "add" {
        return Ok(Change::AddNetwork(key[0], key[0]));
    }
    Ok(match verb {
        "add" => Change::Add(key, stays),
        _ => Change::Delete(key),
    })
}

fn key(element: &Value, fields: &[Field]) -> Result<Key, RulesetError> {
    let values = match tagged(element) {
        Some(("concat", Value::Array(values))) => values.as_slice(),
        _ => std::slice::from_ref(element),
    };
    if values.len() != fields.len() {
        return Err(unknown("the element", element));
    }
    let mut key = [0; LONGEST_KEY];
    for ((place, value), field) in key.iter_mut().zip(values).zip(fields) {
        *place = number(field.kind(), value)?;
    }
    Ok(key)
}

impl Field {
    fn kind(self) -> Kind {
        match self {
            Field::Address => Kind::Address,
            Field::Protocol => Kind::Protocol,
            Field::Port | Field::Mark => Kind::Number,
        }
    }
}

fn rule(object: &Map<String, Value>, chains: &[Chain], sets: &[Set]) -> Result<Rule, RulesetError> {
    let (mut tests, mut statements) = (Vec::new(), Vec::new());
    for expression in list(object, "expr")? {
        match tagged(expression) {
            Some(("match", test)) if statements.is_empty() => tests.push(self::test(test, sets)?),
            Some(("set", update)) if statements.is_empty() => tests.push(over(update, sets)?),
            Some(("match", _)) => return Err(unknown("a test behind a statement", expression)),
            _ => statements.push(statement(expression, chains)?),
        }
    }
    Ok(Rule {
        comment: text(object, "comment").unwrap_or_default().to_owned(),
        tests: tests.into(),
        statements: statements.into(),
        packets: Cell::new(0),
    })
}

fn statement(expression: &Value, chains: &[Chain]) -> Result<Statement, RulesetError> {
    let (kind, content) = tagged(expression).ok_or_else(|| unknown("the statement", expression))?;
    let target = || chain_number(chains, content["target"].as_str().unwrap_or_default());
    Ok(match kind {
        "counter" => Statement::Count,
        "accept" => Statement::Accept,
        "drop" => Statement::Drop,
        "return" => Statement::Return,
        "jump" => Statement::Jump(target()?),
        "goto" => Statement::Goto(target()?),
        "mangle" => mangle(content)?,
        "queue" => {
            let bypass = match content.get("flags").map(Value::as_str) {
                None => false,
                Some(Some("bypass")) => true,
                Some(_) => return Err(unknown("the queue", expression)),
            };
            let number = content["num"].as_u64();
            let number = number.and_then(|number| u16::try_from(number).ok());
            let number = number.ok_or_else(|| unknown("the queue", expression))?;
            Statement::Queue { number, bypass }
        }
        _ => return Err(unknown("the statement", expression)),
    })
}

fn mangle(content: &Value) -> Result<Statement, RulesetError> {
    let key = load(&content["key"])?.0.source;
    let change = match tagged(&content["value"]) {
        Some((operator, Value::Array(sides))) => {
            let same = sides.len() == 2 && load(&sides[0])?.0.source == key;
            let bits = sides.get(1).and_then(Value::as_u64);
            let bits = bits
                .filter(|_| same)
                .and_then(|bits| u32::try_from(bits).ok());
            match (operator, bits) {
                ("|", Some(added)) => Some(MarkChange {
                    kept: u32::MAX,
                    added,
                }),
                ("&", Some(kept)) => Some(MarkChange { kept, added: 0 }),
                _ => None,
            }
        }
        _ => None,
    };
    match (key, change) {
        (Source::PacketMark, Some(change)) => Ok(Statement::MarkPacket(change)),
        (Source::ConnectionMark, Some(change)) => Ok(Statement::MarkConnection(change)),
        _ => Err(unknown("the change", content)),
    }
}

fn test(content: &Value, sets: &[Set]) -> Result<Test, RulesetError> {
    let (left, right) = (&content["left"], &content["right"]);
    let operator = content["op"].as_str().unwrap_or_default();
    if let Some(name) = right.as_str().and_then(|text| text.strip_prefix('@')) {
        let set = set_number(sets, name)?;
        let expected = match operator {
            "==" | "in" => true,
            "!=" => false,
            _ => return Err(unknown("the comparison", content)),
        };
        let key = loads(left)?;
        if key.len() != sets[set].fields.len() {
            return Err(unknown("the key of this set", content));
        }
        return Ok(Test::Member { key, set, expected });
    }
    let (load, kind) = load(left)?;
    let comparison = comparison(operator, kind, right)?;
    let comparison = comparison.ok_or_else(|| unknown("the comparison", content))?;
    Ok(Test::Compare(load, comparison))
}

/// First and last address, if this is a network.
fn network(value: &Value) -> Result<Option<(u32, u32)>, RulesetError> {
    let Some(("prefix", net)) = tagged(value) else {
        return Ok(None);
    };
    let address = number(Kind::Address, &net["addr"])?;
    let length = net["len"].as_u64().and_then(|len| u32::try_from(len).ok());
    let length = length.filter(|length| *length <= 32);
    let length = length.ok_or_else(|| unknown("the prefix", value))?;
    let hosts = u32::MAX.checked_shr(length).unwrap_or(0);
    Ok(Some((address & !hosts, address | hosts)))
}

/// A set's element that is renewed and asks for more than its share.
fn over(content: &Value, sets: &[Set]) -> Result<Test, RulesetError> {
    let error = || unknown("the change of a set", content);
    let name = content["set"]
        .as_str()
        .and_then(|text| text.strip_prefix('@'));
    set_number(sets, name.ok_or_else(error)?)?;
    let limit = match content["stmt"].as_array().map(Vec::as_slice) {
        Some([statement]) => &statement["limit"],
        _ => return Err(error()),
    };
    let is_known = content["op"] == "update" && limit["per"] == "second" && limit["inv"] == true;
    let number = |key: &str| limit[key].as_u64().and_then(|it| u32::try_from(it).ok());
    let (rate, burst) = number("rate").zip(number("burst")).ok_or_else(error)?;
    if !is_known || rate == 0 {
        return Err(error());
    }
    let key = load(&content["elem"]["elem"]["val"])?.0;
    Ok(Test::Over(key, Budgets::new(rate, burst)))
}

fn comparison(
    operator: &str,
    kind: Kind,
    right: &Value,
) -> Result<Option<Comparison>, RulesetError> {
    use Comparison::{AnyBit, Never, Outside, Within};
    if let (Kind::State, "in", Value::Array(states)) = (kind, operator, right) {
        let bits = states.iter().map(|state| number(kind, state));
        return bits.sum::<Result<u32, _>>().map(|bits| Some(AnyBit(bits)));
    }
    let (low, high) = match tagged(right) {
        Some(("range", Value::Array(ends))) if ends.len() == 2 => {
            (number(kind, &ends[0])?, number(kind, &ends[1])?)
        }
        Some(("prefix", _)) if kind == Kind::Address => {
            network(right)?.ok_or_else(|| unknown("the network", right))?
        }
        _ => {
            let number = number(kind, right)?;
            (number, number)
        }
    };
    let is_single = low == high;
    Ok(match operator {
        "==" => Some(Within(low, high)),
        "!=" => Some(Outside(low, high)),
        ">=" if is_single => Some(Within(low, u32::MAX)),
        "<=" if is_single => Some(Within(0, high)),
        ">" if is_single => Some(
            low.checked_add(1)
                .map_or(Never, |low| Within(low, u32::MAX)),
        ),
        "<" if is_single => Some(high.checked_sub(1).map_or(Never, |high| Within(0, high))),
        _ => None,
    })
}

/// What the words for a number mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Number,
    Address,
    Family,
    Protocol,
    Flags,
    State,
    Direction,
}

/// The loads of a key, one or several.
fn loads(left: &Value) -> Result<Vec<Load>, RulesetError> {
    match tagged(left) {
        Some(("concat", Value::Array(parts))) => {
            let parts = parts.iter().map(load);
            parts.map(|part| part.map(|(load, _)| load)).collect()
        }
        _ => Ok(vec![load(left)?.0]),
    }
}

fn load(left: &Value) -> Result<(Load, Kind), RulesetError> {
    let (tag, content) = tagged(left).ok_or_else(|| unknown("the expression", left))?;
    let (source, kind) = match (tag, content["key"].as_str()) {
        ("&", _) => {
            let sides = content.as_array().filter(|sides| sides.len() == 2);
            let sides = sides.ok_or_else(|| unknown("the expression", left))?;
            let (inner, kind) = load(&sides[0])?;
            let mask = inner.mask & number(kind, &sides[1])?;
            return Ok((Load { mask, ..inner }, kind));
        }
        ("meta", Some("mark")) => (Source::PacketMark, Kind::Number),
        ("meta", Some("nfproto")) => (Source::Family, Kind::Family),
        ("meta", Some("l4proto")) => (Source::Protocol, Kind::Protocol),
        ("ct", Some("mark")) => (Source::ConnectionMark, Kind::Number),
        ("ct", Some("state")) => (Source::ConnectionState, Kind::State),
        ("ct", Some("direction")) => (Source::ConnectionDirection, Kind::Direction),
        ("payload", _) if content.get("base").is_some() => (raw(content)?, Kind::Number),
        ("payload", _) => header_field(content)?,
        _ => return Err(unknown("the expression", left)),
    };
    let mask = u32::MAX;
    Ok((Load { source, mask }, kind))
}

fn header_field(content: &Value) -> Result<(Source, Kind), RulesetError> {
    use Base::{Network, Transport};
    let field = (content["protocol"].as_str(), content["field"].as_str());
    let (Some(protocol), Some(field)) = field else {
        return Err(unknown("the header field", content));
    };
    let (base, offset, length, protocol, kind) = match (protocol, field) {
        ("ip", "length") => (Network, 2, 2, None, Kind::Number),
        ("ip", "saddr") => (Network, 12, 4, None, Kind::Address),
        ("ip", "daddr") => (Network, 16, 4, None, Kind::Address),
        ("th", "sport") => (Transport, 0, 2, None, Kind::Number),
        ("th", "dport") => (Transport, 2, 2, None, Kind::Number),
        ("tcp", "sport") => (Transport, 0, 2, Some(TCP), Kind::Number),
        ("tcp", "dport") => (Transport, 2, 2, Some(TCP), Kind::Number),
        ("tcp", "flags") => (Transport, 13, 1, Some(TCP), Kind::Flags),
        ("udp", "sport") => (Transport, 0, 2, Some(UDP), Kind::Number),
        ("udp", "dport") => (Transport, 2, 2, Some(UDP), Kind::Number),
        ("udp", "length") => (Transport, 4, 2, Some(UDP), Kind::Number),
        _ => return Err(unknown("the header field", content)),
    };
    let source = Source::Octets {
        base,
        offset,
        length,
        protocol,
    };
    Ok((source, kind))
}

/// Whole octets only, four at most.
fn raw(content: &Value) -> Result<Source, RulesetError> {
    let base = match content["base"].as_str() {
        Some("nh") => Base::Network,
        Some("th") => Base::Transport,
        Some("ih") => Base::Inner,
        _ => return Err(unknown("the base", content)),
    };
    let octets = |key: &str| {
        let bits = content[key]
            .as_u64()
            .filter(|bits| bits.is_multiple_of(8))?;
        u16::try_from(bits / 8).ok()
    };
    match (octets("offset"), octets("len")) {
        (Some(offset), Some(length @ 1..=4)) => Ok(Source::Octets {
            base,
            offset,
            length: length as u8,
            protocol: None,
        }),
        _ => Err(unknown("the place in the packet", content)),
    }
}

/// A number, or the word for one.
fn number(kind: Kind, value: &Value) -> Result<u32, RulesetError> {
    let error = || unknown("the value", value);
    match value {
        Value::Number(number) => {
            let number = number
                .as_u64()
                .and_then(|number| u32::try_from(number).ok());
            number.ok_or_else(error)
        }
        Value::String(word) => self::word(kind, word).ok_or_else(error),
        Value::Object(_) => match tagged(value) {
            Some(("|", Value::Array(words))) => {
                let mut numbers = words.iter().map(|word| number(kind, word));
                numbers.try_fold(0, |sum, number| Ok(sum | number?))
            }
            _ => Err(error()),
        },
        Value::Null | Value::Bool(_) | Value::Array(_) => Err(error()),
    }
}

fn word(kind: Kind, word: &str) -> Option<u32> {
    Some(match (kind, word) {
        (Kind::Address, word) => word.parse::<Ipv4Addr>().ok()?.to_bits(),
        (Kind::Family, "ipv4") => FAMILY_IPV4,
        (Kind::Family, "ipv6") => 10,
        (Kind::Protocol, "icmp") => 1,
        (Kind::Protocol, "tcp") => u32::from(TCP),
        (Kind::Protocol, "udp") => u32::from(UDP),
        (Kind::Flags, "fin") => 0x01,
        (Kind::Flags, "syn") => 0x02,
        (Kind::Flags, "rst") => 0x04,
        (Kind::Flags, "psh") => 0x08,
        (Kind::Flags, "ack") => 0x10,
        (Kind::State, "invalid") => STATE_INVALID,
        (Kind::State, "established") => STATE_ESTABLISHED,
        (Kind::State, "new") => STATE_NEW,
        (Kind::Direction, "original") => 0,
        (Kind::Direction, "reply") => 1,
        _ => return None,
    })
}
