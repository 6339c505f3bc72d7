//! A list in a configuration file in which a single entry needs no brackets.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, Deserialize, Deserializer, IntoDeserializer as _, SeqAccess, Visitor};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::setting::{Setting as _, Text, Textual};

/// Such a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneOrMany<T>(pub Vec<Text<T>>);

impl<T> OneOrMany<T> {
    /// Whether it has no entry.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: Textual> OneOrMany<T> {
    /// The JSON schema of how it is written.
    #[must_use]
    pub fn schema() -> Value {
        let one = Text::<T>::schema();
        json!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] })
    }
}

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Textual> Serialize for OneOrMany<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Textual> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Entries(PhantomData))
    }
}

struct Entries<T>(PhantomData<T>);

impl<'de, T: Textual> Visitor<'de> for Entries<T> {
    type Value = OneOrMany<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}, or several in brackets", T::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrMany<T>, E> {
        let entry = Text::deserialize(text.into_deserializer())?;
        Ok(OneOrMany(vec![entry]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<OneOrMany<T>, A::Error> {
        let mut all = Vec::new();
        while let Some(entry) = entries.next_element()? {
            all.push(entry);
        }
        Ok(OneOrMany(all))
    }
}
