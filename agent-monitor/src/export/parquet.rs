//! Parquet: OCSF events with real structs as columns, in Hive partitions that DuckDB, Spark and Trino read.
//!
//! `class_uid=1001/eventDay=20261126/part-00000.parquet`, zstd. All classes share one fixed schema, written down here, so
//! that files of different days and hosts fit together; what a class does not have is null. Two things are text (JSON):
//! `unmapped`, and the free data of evidences. Parents of processes are structs down to the third.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_json::ReaderBuilder;
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use serde_json::Value;

use crate::model::Time;

/// Rows that are gathered before they are written.
const BATCH: usize = 4096;
/// Rows of a file.
const FILE_ROWS: usize = 1 << 20;
/// Parents of a process that are structs.
const PARENTS: usize = 3;

/// The columns: `name` is text, `name:i` a whole number, `name:b` a truth value, `name{…}` a struct, `name[…]` a list of
/// structs, `name[]` a list of texts; `@name` stands for a struct that is defined below.
const COLUMNS: &str = "
time:i type_uid:i activity_id:i category_uid:i severity_id:i action_id:i disposition_id:i status_id:i
class_name category_name activity_name type_name severity action disposition status status_code status_detail message
exit_code:i duration:i launch_type launch_type_id:i unmapped
metadata{version uid sequence:i event_code log_name original_time profiles[] product{name version feature{name}}}
device{type type_id:i hostname uid os{name type type_id:i kernel_release}}
actor{process@process user@user app_name}
process@process file@file file_result@file
module{file@file load_type load_type_id:i} driver{file@file} kernel{name type type_id:i}
ai_agent@agent policy{uid name is_applied:b}
attacks[version technique{uid name} sub_technique{uid name}]
attestation_list[uid chain_uid authority_uid fingerprint{algorithm algorithm_id:i value serialization serialization_id:i}]
src_endpoint@endpoint dst_endpoint@endpoint
connection_info{direction_id:i protocol_name protocol_ver_id:i} traffic{bytes:i bytes_in:i bytes_out:i}
query{hostname} answers[rdata]
finding_info{uid title created_time:i analytic{name type type_id:i} types[]}
evidences[process@process file@file data]
entity{name uid type type_id:i} app{name}
";

/// Structs by name.
const STRUCTS: &[(&str, &str)] = &[
    ("user", "uid name"),
    ("file", "name path parent_folder type_id:i uid"),
    ("agent", "uid name instance_uid type type_id:i"),
    ("endpoint", "ip port:i name hostname"),
    (
        "process",
        "pid:i uid tid:i name file@file cmd_line working_directory created_time:i user@user container{uid} parent_process@parent1",
    ),
    ("parent1", "pid:i created_time:i name file@file parent_process@parent2"),
    ("parent2", "pid:i created_time:i name file@file parent_process@parent3"),
    ("parent3", "pid:i created_time:i name file@file"),
];

/// Why no Parquet is written.
#[derive(Debug, thiserror::Error)]
pub enum ParquetFailure {
    /// A file or directory.
    #[error("cannot write {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// An event does not fit the columns.
    #[error("an event does not fit the columns: {0}")]
    Columns(#[from] ArrowError),
    /// The encoder.
    #[error("cannot encode: {0}")]
    Encode(#[from] ParquetError),
}

/// The schema of every file.
#[must_use]
pub fn schema() -> Arc<Schema> {
    Arc::new(Schema::new(fields(COLUMNS)))
}

/// Reads the notation of [`COLUMNS`].
fn fields(text: &str) -> Fields {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let (kind, after) = kind(after);
        out.push(Field::new(name, kind, true));
        rest = after.trim_start();
    }
    out.into()
}

fn kind(text: &str) -> (DataType, &str) {
    let list = |inner: DataType| DataType::List(Arc::new(Field::new("item", inner, true)));
    match text.chars().next() {
        Some(':') => {
            let integer = text.starts_with(":i");
            (if integer { DataType::Int64 } else { DataType::Boolean }, text.get(2..).unwrap_or_default())
        }
        Some('@') => {
            let end = text.find(char::is_whitespace).map_or(text.len(), |end| end);
            let end = text.find(['}', ']']).map_or(end, |close| close.min(end));
            let name = text.get(1..end).unwrap_or_default();
            let known = STRUCTS.iter().find(|(known, _)| *known == name).map_or("", |(_, columns)| columns);
            (DataType::Struct(fields(known)), text.get(end..).unwrap_or_default())
        }
        Some(open @ ('{' | '[')) => {
            let (inner, after) = inside(text);
            let of = if inner.is_empty() { DataType::Utf8 } else { DataType::Struct(fields(inner)) };
            (if open == '[' { list(of) } else { of }, after)
        }
        _ => (DataType::Utf8, text),
    }
}

/// What is between the bracket that `text` begins with and its partner, and what follows.
fn inside(text: &str) -> (&str, &str) {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return (text.get(1..at).unwrap_or_default(), text.get(at + 1..).unwrap_or_default());
        }
    }
    (text.get(1..).unwrap_or_default(), "")
}

/// An OCSF object as a row: what is text here is made text, and what is too deep is cut.
fn row(mut event: Value) -> Value {
    if let Some(event) = event.as_object_mut() {
        // The partition says it.
        event.remove("class_uid");
        if let Some(unmapped) = event.get_mut("unmapped") {
            *unmapped = unmapped.to_string().into();
        }
        let evidences = event.get_mut("evidences").and_then(Value::as_array_mut).into_iter().flatten();
        for data in evidences.filter_map(|evidence| evidence.get_mut("data")) {
            *data = data.to_string().into();
        }
    }
    for pointer in ["/actor/process", "/process", "/evidences/0/process"] {
        let deep = format!("{pointer}{}", "/parent_process".repeat(PARENTS));
        if let Some(parent) = event.pointer_mut(&deep).and_then(Value::as_object_mut) {
            parent.remove("parent_process");
        }
    }
    event
}

/// One partition that is being written.
struct Part {
    writer: ArrowWriter<File>,
    rows: Vec<Value>,
    written: usize,
}

/// Writes events into partitions below a directory.
pub struct Table {
    dir: PathBuf,
    schema: Arc<Schema>,
    parts: BTreeMap<(u64, String), Part>,
    files: usize,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("dir", &self.dir).field("files", &self.files).finish_non_exhaustive()
    }
}

impl Table {
    /// Below `dir`, which must not exist.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(dir: &Path) -> Result<Self, ParquetFailure> {
        fs::create_dir(dir).map_err(|source| ParquetFailure::File { path: dir.to_owned(), source })?;
        Ok(Self { dir: dir.to_owned(), schema: schema(), parts: BTreeMap::new(), files: 0 })
    }

    /// Takes an event as OCSF, and its time.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn take(&mut self, event: Value, time: Time) -> Result<(), ParquetFailure> {
        let day = time.timestamp().strftime("%Y%m%d").to_string();
        let key = (event["class_uid"].as_u64().unwrap_or(0), day);
        if self.parts.get(&key).is_some_and(|part| part.written + part.rows.len() >= FILE_ROWS) {
            self.close(&key)?;
        }
        if !self.parts.contains_key(&key) {
            let part = self.open(&key)?;
            self.parts.insert(key.clone(), part);
        }
        let Some(part) = self.parts.get_mut(&key) else { return Ok(()) };
        part.rows.push(row(event));
        if part.rows.len() >= BATCH { flush(&self.schema, part) } else { Ok(()) }
    }

    fn open(&mut self, (class, day): &(u64, String)) -> Result<Part, ParquetFailure> {
        let dir = self.dir.join(format!("class_uid={class}")).join(format!("eventDay={day}"));
        let path = dir.join(format!("part-{:05}.parquet", self.files));
        self.files += 1;
        let file = fs::create_dir_all(&dir).and_then(|()| File::create_new(&path));
        let file = file.map_err(|source| ParquetFailure::File { path, source })?;
        let zstd = ZstdLevel::try_new(3)?;
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(zstd)).build();
        let writer = ArrowWriter::try_new(file, Arc::clone(&self.schema), Some(properties))?;
        Ok(Part { writer, rows: Vec::new(), written: 0 })
    }

    fn close(&mut self, key: &(u64, String)) -> Result<(), ParquetFailure> {
        if let Some(mut part) = self.parts.remove(key) {
            flush(&self.schema, &mut part)?;
            part.writer.close()?;
        }
        Ok(())
    }

    /// Writes what is left and closes all files; how many there are.
    ///
    /// # Errors
    /// When one cannot be written.
    pub fn finish(mut self) -> Result<usize, ParquetFailure> {
        let keys: Vec<_> = self.parts.keys().cloned().collect();
        keys.iter().try_for_each(|key| self.close(key))?;
        Ok(self.files)
    }
}

fn flush(schema: &Arc<Schema>, part: &mut Part) -> Result<(), ParquetFailure> {
    let rows = std::mem::take(&mut part.rows);
    if rows.is_empty() {
        return Ok(());
    }
    // Strict: an attribute without a column is an error, not a loss.
    let mut decoder = ReaderBuilder::new(Arc::clone(schema))
        .with_batch_size(rows.len())
        .with_strict_mode(true)
        .build_decoder()?;
    decoder.serialize(&rows)?;
    if let Some(batch) = decoder.flush()? {
        part.written += batch.num_rows();
        part.writer.write(&batch)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::ocsf::Version;
    use crate::export::ocsf::tests::{full, object_of};
    use crate::model::Kind;

    #[test]
    fn every_kind_of_event_fits_the_columns_and_nothing_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let mut table = Table::create(&directory.path().join("t")).unwrap();
        for kind in Kind::ALL {
            let event = full(*kind);
            table.take(object_of(&event, Version::V1_9), event.time).unwrap();
        }
        assert_eq!(table.finish().unwrap(), 10, "one file for each class");
    }

    #[test]
    fn the_columns_are_read_as_written() {
        let schema = schema();
        let file = schema.field_with_name("actor").unwrap();
        let DataType::Struct(actor) = file.data_type() else { panic!() };
        assert_eq!(
            actor.iter().map(|field| field.name().as_str()).collect::<Vec<_>>(),
            ["process", "user", "app_name"]
        );
        assert!(matches!(schema.field_with_name("attacks").unwrap().data_type(), DataType::List(_)));
        assert_eq!(schema.field_with_name("time").unwrap().data_type(), &DataType::Int64);
        let DataType::Struct(metadata) = schema.field_with_name("metadata").unwrap().data_type().clone()
        else {
            panic!()
        };
        assert_eq!(metadata.len(), 8);
    }
}
