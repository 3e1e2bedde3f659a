//! Finds the field that JSON does not return as it was; used only after a value was refused.

use std::fmt::{self, Display};

use serde::{
    Serialize, Serializer,
    ser::{
        self, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
        SerializeTupleStruct, SerializeTupleVariant,
    },
};

use super::{
    place::{Place, Step},
    refusal::Unencodable,
};

/// The first field for which JSON has no form, and the reason. With `suspects` also a field that only some readers refuse: a
/// flattened structure, or an enum with its tag inside, is read through a buffer that knows fewer types.
pub(super) fn find(value: &impl Serialize, suspects: bool) -> Option<(Place, Unencodable)> {
    let Found { place, reason } = value.serialize(Walk { suspects }).err()?;
    Some((place, reason?))
}

/// Visits a value through serde, and stops at the first field that it searches for.
#[derive(Clone, Copy)]
struct Walk {
    suspects: bool,
}

/// The JSON form of a value, as far as the value around it needs to know.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Null,
    Text,
    Other,
}

/// The end of the walk; without a reason the type of the value refused to be written.
#[derive(Debug)]
struct Found {
    place: Place,
    reason: Option<Unencodable>,
}

impl Found {
    fn within(mut self, step: Step) -> Self {
        self.place.within(step);
        self
    }
}

impl From<Unencodable> for Found {
    fn from(reason: Unencodable) -> Self {
        Self { place: Place::default(), reason: Some(reason) }
    }
}

impl Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the walk ends")
    }
}

impl std::error::Error for Found {}

impl ser::Error for Found {
    fn custom<T: Display>(_: T) -> Self {
        Self { place: Place::default(), reason: None }
    }
}

/// The parts of a value that has several.
struct Parts {
    walk: Walk,
    step: Parent,
}

/// The kind of the value that holds a part.
enum Parent {
    List { next: usize },
    Fields,
    Map { flattened: bool, key: Step },
    Variant(&'static str),
}

impl Walk {
    fn parts(self, step: Parent) -> Parts {
        Parts { walk: self, step }
    }

    fn float(number: f64) -> Result<Form, Found> {
        if number.is_finite() { Ok(Form::Other) } else { Err(Unencodable::NotFinite.into()) }
    }

    fn wide(self) -> Result<Form, Found> {
        if self.suspects { Err(Unencodable::WideInteger.into()) } else { Ok(Form::Other) }
    }
}

macro_rules! plain {
    ($($method:ident($($argument:ty),*) => $form:expr)*) => {
        $(fn $method(self $(, _: $argument)*) -> Result<Form, Found> {
            Ok($form)
        })*
    };
}

impl Serializer for Walk {
    type Ok = Form;
    type Error = Found;
    type SerializeSeq = Parts;
    type SerializeTuple = Parts;
    type SerializeTupleStruct = Parts;
    type SerializeTupleVariant = Parts;
    type SerializeMap = Parts;
    type SerializeStruct = Parts;
    type SerializeStructVariant = Parts;

    plain! {
        serialize_bool(bool) => Form::Other
        serialize_i8(i8) => Form::Other
        serialize_i16(i16) => Form::Other
        serialize_i32(i32) => Form::Other
        serialize_i64(i64) => Form::Other
        serialize_u8(u8) => Form::Other
        serialize_u16(u16) => Form::Other
        serialize_u32(u32) => Form::Other
        serialize_u64(u64) => Form::Other
        serialize_char(char) => Form::Text
        serialize_str(&str) => Form::Text
        serialize_bytes(&[u8]) => Form::Other
        serialize_none() => Form::Null
        serialize_unit() => Form::Null
        serialize_unit_struct(&'static str) => Form::Null
        serialize_unit_variant(&'static str, u32, &'static str) => Form::Text
    }

    fn serialize_i128(self, _: i128) -> Result<Form, Found> {
        self.wide()
    }

    fn serialize_u128(self, _: u128) -> Result<Form, Found> {
        self.wide()
    }

    fn serialize_f32(self, number: f32) -> Result<Form, Found> {
        Self::float(number.into())
    }

    fn serialize_f64(self, number: f64) -> Result<Form, Found> {
        Self::float(number)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Form, Found> {
        match value.serialize(self)? {
            Form::Null => Err(Unencodable::SomeNull.into()),
            form => Ok(form),
        }
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<Form, Found> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Form, Found> {
        value.serialize(self).map_err(|found| found.within(Step::name(variant)))?;
        Ok(Form::Other)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Parts, Found> {
        Ok(self.parts(Parent::List { next: 0 }))
    }

    fn serialize_tuple(self, _: usize) -> Result<Parts, Found> {
        Ok(self.parts(Parent::List { next: 0 }))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Parts, Found> {
        Ok(self.parts(Parent::List { next: 0 }))
    }

    fn serialize_tuple_variant(self, _: &'static str, _: u32, variant: &'static str, _: usize) -> Result<Parts, Found> {
        Ok(self.parts(Parent::Variant(variant)))
    }

    /// A structure with a flattened field is a map too, of a length that is not known before.
    fn serialize_map(self, length: Option<usize>) -> Result<Parts, Found> {
        Ok(self.parts(Parent::Map { flattened: length.is_none(), key: Step::Entry }))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Parts, Found> {
        Ok(self.parts(Parent::Fields))
    }

    fn serialize_struct_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<Parts, Found> {
        Ok(self.parts(Parent::Fields))
    }
}

impl Parts {
    fn part(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), Found> {
        let step = match &mut self.step {
            Parent::List { next } => {
                *next += 1;
                Step::Index(*next - 1)
            }
            Parent::Map { key, .. } => std::mem::replace(key, Step::Entry),
            Parent::Variant(variant) => Step::name(variant),
            Parent::Fields => Step::Entry,
        };
        value.serialize(self.walk).map(drop).map_err(|found| found.within(step))
    }

    fn field(&mut self, name: &'static str, value: &(impl Serialize + ?Sized)) -> Result<(), Found> {
        value.serialize(self.walk).map(drop).map_err(|found| found.within(Step::name(name)))
    }
}

macro_rules! parts {
    ($($port:ident::$method:ident)*) => {
        $(impl $port for Parts {
            type Ok = Form;
            type Error = Found;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Found> {
                self.part(value)
            }

            fn end(self) -> Result<Form, Found> {
                Ok(Form::Other)
            }
        })*
    };
}

parts! {
    SerializeSeq::serialize_element
    SerializeTuple::serialize_element
    SerializeTupleStruct::serialize_field
    SerializeTupleVariant::serialize_field
}

macro_rules! fields {
    ($($port:ident)*) => {
        $(impl $port for Parts {
            type Ok = Form;
            type Error = Found;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Found> {
                self.field(name, value)
            }

            fn end(self) -> Result<Form, Found> {
                Ok(Form::Other)
            }
        })*
    };
}

fields! { SerializeStruct SerializeStructVariant }

impl SerializeMap for Parts {
    type Ok = Form;
    type Error = Found;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Found> {
        if key.serialize(self.walk)? != Form::Text && self.walk.suspects {
            return Err(Unencodable::MapKey.into());
        }
        if let Parent::Map { flattened: true, key: step } = &mut self.step
            && let Ok(serde_json::Value::String(name)) = serde_json::to_value(key)
            && is_name(&name)
        {
            *step = Step::Name(name);
        }
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Found> {
        self.part(value)
    }

    fn end(self) -> Result<Form, Found> {
        Ok(Form::Other)
    }
}

/// Whether it may be a field's name; other keys are data.
fn is_name(key: &str) -> bool {
    key.len() <= 64 && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
