//! Properties of clients, some of which are passwords.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt, fs,
    path::{Path, PathBuf},
};

use es_core::error::BoxError;

/// Further properties of librdkafka, for example for TLS and SASL (`security.protocol`, `ssl.…`, `sasl.…`), which are
/// compiled in but for GSSAPI.
///
/// They may tune, but not weaken: what exactly-once rests on is set after them. `Debug` shows names only, since some
/// values are passwords.
///
/// ```
/// use es_kafka::Settings;
///
/// let settings = Settings::from([("security.protocol", "SASL_SSL"), ("sasl.password", "secret")]);
/// assert_eq!(format!("{settings:?}"), r#"{"sasl.password", "security.protocol"}"#);
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Settings(BTreeMap<String, String>);

impl Settings {
    /// No properties.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets one property, in the place of its former value.
    pub fn insert(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.insert(name.into(), value.into());
    }

    /// All properties with their values, some of which are passwords, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Takes one property out.
    pub fn remove(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// Reads the properties of a file, as the clients of Java have them: a line `name=value` for each. A line that is empty or
    /// begins with `#` is ignored, and so are blanks around names and values.
    ///
    /// ```
    /// let settings = es_kafka::Settings::parse("# for tests\nsecurity.protocol = SASL_SSL\nsasl.password=a=b\n")?;
    /// assert_eq!(format!("{settings:?}"), r#"{"sasl.password", "security.protocol"}"#);
    /// # Ok::<(), es_kafka::InvalidSettings>(())
    /// ```
    ///
    /// # Errors
    /// [`InvalidSettings`] names the line, and does not repeat it: it may hold a password.
    pub fn parse(text: &str) -> Result<Self, InvalidSettings> {
        let mut settings = Self::new();
        for (index, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let property = line.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
            let (name, value) =
                property.filter(|(name, _)| !name.is_empty()).ok_or(InvalidSettings { line: index + 1 })?;
            settings.insert(name, value);
        }
        Ok(settings)
    }

    /// Loads the properties of `file`, if there is one, in the form of [`parse`](Self::parse), and those of the environment, which come
    /// before them.
    ///
    /// A variable is a property if its name begins with `prefix`: with the prefix `ES_KAFKA_`, `ES_KAFKA_SASL_PASSWORD` is
    /// `sasl.password`. The `others` are names after the prefix that the program uses itself.
    ///
    /// ```
    /// use es_kafka::Settings;
    ///
    /// let variables = [("ORDERS_KAFKA_SASL_PASSWORD", "secret"), ("ORDERS_KAFKA_BROKERS", "a:9092"), ("HOME", "/")];
    /// let variables = variables.map(|(name, value)| (name.into(), value.into())); // std::env::vars_os()
    /// let settings = Settings::load(None, "ORDERS_KAFKA_", &["BROKERS"], variables)?;
    /// assert_eq!(settings, Settings::from([("sasl.password", "secret")]));
    /// # Ok::<(), es_kafka::UnusableSettings>(())
    /// ```
    ///
    /// # Errors
    /// [`UnusableSettings`] names the file and the line, and does not repeat it.
    pub fn load(
        file: Option<&Path>,
        prefix: &str,
        others: &[&str],
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, UnusableSettings> {
        let mut settings = file.map_or_else(|| Ok(Self::new()), Self::read)?;
        for (name, value) in variables {
            let (Ok(name), Ok(value)) = (name.into_string(), value.into_string()) else { continue };
            let Some(property) = name.strip_prefix(prefix).filter(|property| !property.is_empty()) else { continue };
            if !others.contains(&property) {
                settings.insert(property.to_ascii_lowercase().replace('_', "."), value);
            }
        }
        Ok(settings)
    }

    fn read(file: &Path) -> Result<Self, UnusableSettings> {
        let unusable = |cause| UnusableSettings { file: file.to_owned(), cause };
        let text = fs::read_to_string(file).map_err(|error| unusable(error.into()))?;
        Self::parse(&text).map_err(|error| unusable(error.into()))
    }
}

/// A file with properties that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be used: write a line name=value for each property", .file.display())]
pub struct UnusableSettings {
    file: PathBuf,
    #[source]
    cause: BoxError,
}

/// A line that is no property.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is no property: write name=value, or begin it with #")]
pub struct InvalidSettings {
    line: usize,
}

impl Extend<(String, String)> for Settings {
    fn extend<T: IntoIterator<Item = (String, String)>>(&mut self, properties: T) {
        self.0.extend(properties);
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Settings {
    fn from_iter<T: IntoIterator<Item = (N, V)>>(properties: T) -> Self {
        Self(properties.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl<N: Into<String>, V: Into<String>, const COUNT: usize> From<[(N, V); COUNT]> for Settings {
    fn from(properties: [(N, V); COUNT]) -> Self {
        properties.into_iter().collect()
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
