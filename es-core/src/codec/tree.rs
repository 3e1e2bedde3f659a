//! A JSON text in memory, read a second time to find the field that does not fit.
//!
//! It knows the path to each value, and which names on the path come from code: serde gives them when it reads a structure.

use std::{borrow::Cow, fmt, slice};

use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeSeed, EnumAccess, Error, MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor,
        value::{BorrowedStrDeserializer, StrDeserializer},
    },
    forward_to_deserialize_any,
};

use super::{misread::Misread, place::Step};

/// A value of JSON. Texts are borrowed where the text itself holds them, as serde's own reader does.
pub(super) enum Tree<'de> {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(Text<'de>),
    List(Vec<Tree<'de>>),
    Object(Vec<(Text<'de>, Tree<'de>)>),
}

pub(super) struct Text<'de>(Cow<'de, str>);

type Fields = Option<&'static [&'static str]>;

impl<'de> Tree<'de> {
    /// `None` for a text that only serde's own reader can read.
    pub(super) fn read(text: &'de [u8]) -> Option<Self> {
        serde_json::from_slice(text).ok().filter(Self::is_plain)
    }

    /// The reason why it is not a `T`; `None` when it is one.
    pub(super) fn misfit<T: Deserialize<'de>>(&self) -> Option<Misread> {
        T::deserialize(self).err()
    }

    /// Whether it holds no number beyond 64 bits, which is read here as a float, and no token of serde's own.
    fn is_plain(&self) -> bool {
        match self {
            Self::Float(number) => number.fract() != 0.0 || number.abs() < 1e18,
            Self::List(items) => items.iter().all(Self::is_plain),
            Self::Object(entries) => {
                entries.iter().all(|(key, value)| !key.0.starts_with("$serde_json") && value.is_plain())
            }
            _ => true,
        }
    }
}

impl<'de> Deserialize<'de> for Tree<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Build;

        impl<'de> Visitor<'de> for Build {
            type Value = Tree<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Tree<'de>, E> {
                Ok(Tree::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Tree<'de>, E> {
                Ok(Tree::Bool(value))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Tree<'de>, E> {
                Ok(Tree::Unsigned(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Tree<'de>, E> {
                Ok(Tree::Signed(value))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Tree<'de>, E> {
                Ok(Tree::Float(value))
            }

            fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Tree<'de>, E> {
                Ok(Tree::Text(Text(Cow::Borrowed(value))))
            }

            fn visit_str<E>(self, value: &str) -> Result<Tree<'de>, E> {
                Ok(Tree::Text(Text(Cow::Owned(value.to_owned()))))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree<'de>, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Tree::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree<'de>, A::Error> {
                let mut object = Vec::new();
                while let Some(entry) = entries.next_entry()? {
                    object.push(entry);
                }
                Ok(Tree::Object(object))
            }
        }

        deserializer.deserialize_any(Build)
    }
}

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Tree::deserialize(deserializer)? {
            Tree::Text(text) => Ok(text),
            _ => Err(D::Error::custom("a key is a text")),
        }
    }
}

impl<'de> Deserializer<'de> for &Tree<'de> {
    type Error = Misread;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misread> {
        match self {
            Tree::Object(_) => self.object(None, visitor),
            Tree::Null => visitor.visit_unit(),
            Tree::Bool(value) => visitor.visit_bool(*value),
            Tree::Unsigned(value) => visitor.visit_u64(*value),
            Tree::Signed(value) => visitor.visit_i64(*value),
            Tree::Float(value) => visitor.visit_f64(*value),
            Tree::Text(text) => text.deserialize_str(visitor),
            Tree::List(items) => visitor.visit_seq(Items { items: items.iter(), index: 0 }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misread> {
        match self {
            Tree::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Misread> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misread> {
        self.object(Some(fields), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misread> {
        let (variant, content) = match self {
            Tree::Text(variant) => (variant, None),
            Tree::Object(entries) => match &entries[..] {
                [(variant, content)] => (variant, Some(content)),
                _ => return Err(Misread::invalid_value(Unexpected::Map, &"an object with one key")),
            },
            _ => return self.deserialize_any(visitor),
        };
        let known = variants.iter().find(|known| **known == variant.0);
        visitor
            .visit_enum(Chosen { variant, content })
            .map_err(|error| if let Some(name) = known { error.within(Step::name(name)) } else { error })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq
        tuple tuple_struct map identifier ignored_any
    }
}

impl<'de> Tree<'de> {
    fn object<V: Visitor<'de>>(&self, fields: Fields, visitor: V) -> Result<V::Value, Misread> {
        match self {
            Self::Object(entries) => visitor.visit_map(Entries { rest: entries.iter(), value: None, fields }),
            _ => self.deserialize_any(visitor),
        }
    }
}

struct Items<'t, 'de> {
    items: slice::Iter<'t, Tree<'de>>,
    index: usize,
}

impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = Misread;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Misread> {
        let Some(item) = self.items.next() else { return Ok(None) };
        let index = self.index;
        self.index += 1;
        seed.deserialize(item).map(Some).map_err(|error| error.within(Step::Index(index)))
    }
}

struct Entries<'t, 'de> {
    rest: slice::Iter<'t, (Text<'de>, Tree<'de>)>,
    value: Option<(Step, &'t Tree<'de>)>,
    fields: Fields,
}

impl<'de> MapAccess<'de> for Entries<'_, 'de> {
    type Error = Misread;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Misread> {
        let Some((key, value)) = self.rest.next() else { return Ok(None) };
        let known = self.fields.and_then(|fields| fields.iter().find(|field| **field == key.0));
        self.value = Some((known.map_or(Step::Entry, |field| Step::name(field)), value));
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Misread> {
        let (step, value) = self.value.take().ok_or_else(|| Misread::custom("a key comes before its value"))?;
        seed.deserialize(value).map_err(|error| error.within(step))
    }
}

struct Chosen<'t, 'de> {
    variant: &'t Text<'de>,
    content: Option<&'t Tree<'de>>,
}

impl<'t, 'de> EnumAccess<'de> for Chosen<'t, 'de> {
    type Error = Misread;
    type Variant = Content<'t, 'de>;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self::Variant), Misread> {
        Ok((seed.deserialize(self.variant)?, Content(self.content)))
    }
}

/// The content of a variant.
struct Content<'t, 'de>(Option<&'t Tree<'de>>);

impl<'de> VariantAccess<'de> for Content<'_, 'de> {
    type Error = Misread;

    fn unit_variant(self) -> Result<(), Misread> {
        self.0.map_or(Ok(()), <()>::deserialize)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Misread> {
        let absent = || Misread::invalid_type(Unexpected::UnitVariant, &"newtype variant");
        self.0.map_or_else(|| Err(absent()), |content| seed.deserialize(content))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Misread> {
        let absent = || Misread::invalid_type(Unexpected::UnitVariant, &"tuple variant");
        self.0.map_or_else(|| Err(absent()), |content| content.deserialize_any(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Misread> {
        let absent = || Misread::invalid_type(Unexpected::UnitVariant, &"struct variant");
        self.0.map_or_else(|| Err(absent()), |content| content.object(Some(fields), visitor))
    }
}

/// Numbers and booleans as keys are texts in JSON.
macro_rules! keys {
    ($($method:ident: $type:ty => $visit:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misread> {
            match self.0.parse::<$type>() {
                Ok(key) => visitor.$visit(key),
                Err(_) => self.deserialize_str(visitor),
            }
        })*
    };
}

impl<'de> Deserializer<'de> for &Text<'de> {
    type Error = Misread;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misread> {
        match &self.0 {
            Cow::Borrowed(text) => BorrowedStrDeserializer::new(text).deserialize_any(visitor),
            Cow::Owned(text) => StrDeserializer::new(text).deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misread> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Misread> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misread> {
        visitor.visit_enum(Chosen { variant: self, content: None })
    }

    keys! {
        deserialize_bool: bool => visit_bool
        deserialize_i8: i8 => visit_i8
        deserialize_i16: i16 => visit_i16
        deserialize_i32: i32 => visit_i32
        deserialize_i64: i64 => visit_i64
        deserialize_i128: i128 => visit_i128
        deserialize_u8: u8 => visit_u8
        deserialize_u16: u16 => visit_u16
        deserialize_u32: u32 => visit_u32
        deserialize_u64: u64 => visit_u64
        deserialize_u128: u128 => visit_u128
        deserialize_f32: f32 => visit_f32
        deserialize_f64: f64 => visit_f64
    }

    forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}
