//! The table that rows go to: made if it is not there, else held against the rows' schema.

use std::fmt;

use tokio_postgres::types::Type as PgType;

use super::column::ColumnStorage;
use super::failure::PostgresFailure;
use super::session::Session;
use crate::error::{Error, Result};
use crate::schema::types::Type;
use crate::schema::{Field, RowSchema};
use crate::sink::Method;

/// Bytes of a name that Postgres does not cut.
const NAME_MAX: usize = 63;

/// A name within a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TableName {
    pub(super) schema: String,
    pub(super) name: String,
}

impl TableName {
    /// Of `name`, or `schema.name`.
    ///
    /// # Errors
    /// It is neither, or too long.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let (schema, name) = text.split_once('.').unwrap_or(("public", text));
        let wrong =
            |why: &str| Err(Error::definition(format!("`{text}` is not a valid table name")).detail(why));
        if schema.is_empty() || name.is_empty() || name.contains('.') || text.contains('\0') {
            return wrong("it is `name`, or `schema.name`");
        }
        if schema.len() > NAME_MAX || name.len() > NAME_MAX {
            return wrong("Postgres truncates names longer than 63 bytes");
        }
        Ok(Self {
            schema: schema.into(),
            name: name.into(),
        })
    }

    /// Another table of the same schema.
    pub(super) fn beside(&self, name: &str) -> Self {
        Self {
            schema: self.schema.clone(),
            name: name.into(),
        }
    }

    /// As it stands in a statement.
    pub(super) fn quoted(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.name))
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// An identifier as it stands in a statement, whatever is in it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Where the values of a column come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ColumnOrigin {
    /// A field of the row after the epoch, by its place in the schema.
    After(usize),
    /// A field of the row before the epoch.
    Before(usize),
    /// The epoch's number.
    Epoch,
    /// By how many the row became more or fewer.
    Diff,
}

/// A column that is written to.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) ty: Type,
    pub(super) store: ColumnStorage,
    pub(super) nullable: bool,
    pub(super) origin: ColumnOrigin,
}

/// The columns that rows of a schema need.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) table: TableName,
    pub(super) columns: Vec<Column>,
    /// So many of them, the first, are the key that rows are replaced by; 0: none are.
    pub(super) keys: usize,
}

impl Layout {
    /// # Errors
    /// Rows of this schema can't be columns, or have no key that Postgres can hold.
    pub(super) fn of(table: TableName, method: Method, schema: &RowSchema) -> Result<Self> {
        let column = |(at, field): (usize, &Field)| {
            let (store, nullable) = ColumnStorage::of(&field.ty);
            Column {
                name: field.name.clone(),
                ty: field.ty.clone(),
                store,
                nullable,
                origin: ColumnOrigin::After(at),
            }
        };
        let fields = schema.fields().enumerate().map(column);
        let keys = schema.key.len();
        let (columns, keys) = match method {
            Method::AppendTo => (fields.collect(), 0),
            Method::UpsertTo | Method::ForEachEpoch => (fields.collect(), keys),
            Method::ChangesTo => (changelog(fields.collect(), keys), 0),
        };
        let layout = Self { table, columns, keys };
        layout.check(method)?;
        Ok(layout)
    }

    fn check(&self, method: Method) -> Result<()> {
        let table = &self.table;
        let wrong = |what: String| Err(Error::definition(what).detail(format!("table `{table}`")));
        if self.columns.is_empty() {
            return wrong("a row has no fields, but a table needs columns".into());
        }
        if method == Method::UpsertTo && self.keys == 0 {
            return wrong("rows without a key cannot be replaced: give the table a key".into());
        }
        for column in &self.columns {
            if column.name.len() > NAME_MAX || column.name.contains('\0') {
                let name = &column.name;
                return wrong(format!(
                    "`{name}` is not a valid column name: it is longer than 63 bytes"
                ));
            }
        }
        let mut names: Vec<&str> = self.columns.iter().map(|column| &*column.name).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return wrong(format!(
                "two columns would be called `{}`: rename the field",
                twice[0]
            ));
        }
        if let Some(column) = self.columns[..self.keys].iter().find(|column| column.nullable) {
            let name = &column.name;
            return wrong(format!(
                "the key's field `{name}` may be null, but a primary key of Postgres may not: give the \
                 field a type without `Option`"
            ));
        }
        Ok(())
    }

    /// The statement that makes the table.
    pub(super) fn create(&self) -> String {
        let column = |column: &Column| {
            let null = if column.nullable { "" } else { " NOT NULL" };
            format!("{} {}{null}", quoted(&column.name), column.store.declared())
        };
        let mut parts: Vec<String> = self.columns.iter().map(column).collect();
        if self.keys > 0 {
            parts.push(format!("PRIMARY KEY ({})", self.names(..self.keys).join(", ")));
        }
        format!("CREATE TABLE {} ({})", self.table.quoted(), parts.join(", "))
    }

    fn names(&self, range: impl std::slice::SliceIndex<[Column], Output = [Column]>) -> Vec<String> {
        self.columns[range]
            .iter()
            .map(|column| quoted(&column.name))
            .collect()
    }

    /// The statement that writes rows, with a parameter a column; `casts` are the types of the columns.
    pub(super) fn insert(&self, casts: &[String]) -> String {
        let (names, all) = (self.names(..).join(", "), self.columns.len());
        let (table, values) = (self.table.quoted(), selected(casts, all));
        let insert = format!(
            "INSERT INTO {table} ({names}) SELECT {values} FROM {}",
            unnested(all)
        );
        if self.keys == 0 {
            return insert;
        }
        let (keys, values) = (self.names(..self.keys).join(", "), self.names(self.keys..));
        if values.is_empty() {
            return format!("{insert} ON CONFLICT ({keys}) DO NOTHING");
        }
        let set = values.iter().map(|name| format!("{name} = EXCLUDED.{name}"));
        let set = set.collect::<Vec<_>>().join(", ");
        format!("{insert} ON CONFLICT ({keys}) DO UPDATE SET {set}")
    }

    /// The statement that deletes rows by key.
    pub(super) fn delete(&self, casts: &[String]) -> String {
        let keys = self.names(..self.keys).into_iter().zip(casts).enumerate();
        let same = keys.map(|(at, (name, cast))| format!("t.{name} = u.c{at}::{cast}"));
        let same = same.collect::<Vec<_>>().join(" AND ");
        format!(
            "DELETE FROM {} AS t USING {} WHERE {same}",
            self.table.quoted(),
            unnested(self.keys)
        )
    }

    /// What could not be done.
    pub(super) fn unwritten(&self) -> String {
        format!("cannot write to table `{}`", self.table)
    }

    /// A value that a column can't hold.
    pub(super) fn refused(&self, column: &str, why: &str) -> Error {
        Error::definition(self.unwritten()).detail(format!("column `{column}`: {why}"))
    }

    /// Whether a row that is all key may be there already.
    pub(super) fn may_be_there(&self) -> bool {
        self.keys == self.columns.len()
    }

    /// Rows that went nowhere.
    pub(super) fn withheld(&self, touched: u64, expected: u64) -> Error {
        Error::integrity(format!("table `{}` did not accept all of its rows", self.table))
            .detail(format!("it accepted {touched} of {expected}, without an error"))
            .hint(
                "a trigger or a rule of the table suppresses rows: its contents would differ from what \
                was sent",
            )
    }
}

/// Columns of a changelog: the key, the epoch, the difference, and each field before and after. A
/// collection's row is all key, so it has no more.
fn changelog(fields: Vec<Column>, keys: usize) -> Vec<Column> {
    let own = |name: &str, origin| Column {
        name: name.into(),
        ty: Type::Int(64),
        store: ColumnStorage::Int8,
        nullable: false,
        origin,
    };
    let mut columns = fields[..keys].to_vec();
    columns.extend([own("epoch", ColumnOrigin::Epoch), own("diff", ColumnOrigin::Diff)]);
    for (before, prefix) in [(true, "before_"), (false, "after_")] {
        columns.extend(fields[keys..].iter().enumerate().map(|(at, field)| Column {
            name: format!("{prefix}{}", field.name),
            nullable: true,
            origin: match before {
                true => ColumnOrigin::Before(keys + at),
                false => ColumnOrigin::After(keys + at),
            },
            ..field.clone()
        }));
    }
    columns
}

/// `unnest($1, $2) AS u(c0, c1)`: arrays as rows.
fn unnested(columns: usize) -> String {
    let list = |of: fn(usize) -> String| (0..columns).map(of).collect::<Vec<_>>().join(", ");
    let (parameters, names) = (list(|at| format!("${}", at + 1)), list(|at| format!("c{at}")));
    format!("unnest({parameters}) AS u({names})")
}

fn selected(casts: &[String], columns: usize) -> String {
    let cast = |at: usize| format!("u.c{at}::{}", casts[at]);
    (0..columns).map(cast).collect::<Vec<_>>().join(", ")
}

/// A table as it is found.
#[derive(Debug, Default)]
pub(super) struct FoundTable {
    /// As `pg_class` says: `r` of a table, `p` of a partitioned one.
    kind: String,
    /// `p`: permanent.
    persistence: String,
    columns: Vec<FoundColumn>,
    /// The columns of each unique index that `ON CONFLICT` may name.
    unique: Vec<Vec<String>>,
}

#[derive(Debug, Default)]
struct FoundColumn {
    name: String,
    /// With its modifier: `numeric(20,0)`.
    ty: String,
    /// Without.
    base: String,
    not_null: bool,
    has_default: bool,
    generated: bool,
}

const LOOK_TABLE: &str = "SELECT c.oid, c.relkind::text, c.relpersistence::text FROM pg_catalog.pg_class c \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2";
const LOOK_COLUMNS: &str = "SELECT attname::text, format_type(atttypid, atttypmod), \
    format_type(atttypid, NULL), attnotnull, atthasdef OR attidentity <> '', \
    attgenerated <> '' OR attidentity = 'a' FROM pg_catalog.pg_attribute \
    WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
const LOOK_UNIQUE: &str = "SELECT ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a \
    WHERE a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])) \
    FROM pg_catalog.pg_index i WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate \
    AND i.indpred IS NULL AND i.indexprs IS NULL";

impl FoundTable {
    /// The table of this name; `None`: there is none.
    pub(super) fn look(session: &Session, table: &TableName) -> Result<Option<Self>, PostgresFailure> {
        let names = [
            (&table.schema as _, PgType::TEXT),
            (&table.name as _, PgType::TEXT),
        ];
        let rows = session.query(LOOK_TABLE, &names)?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let oid: u32 = row.try_get(0)?;
        let of = [(&oid as _, PgType::OID)];
        let mut found = Self {
            kind: row.try_get(1)?,
            persistence: row.try_get(2)?,
            ..Self::default()
        };
        for row in session.query(LOOK_COLUMNS, &of)? {
            found.columns.push(FoundColumn {
                name: row.try_get(0)?,
                ty: row.try_get(1)?,
                base: row.try_get(2)?,
                not_null: row.try_get(3)?,
                has_default: row.try_get(4)?,
                generated: row.try_get(5)?,
            });
        }
        for row in session.query(LOOK_UNIQUE, &of)? {
            found.unique.push(row.try_get(0)?);
        }
        Ok(Some(found))
    }

    /// The types that parameters are cast to: without modifiers, as a cast to one cuts what is too long,
    /// where an assignment refuses it.
    ///
    /// # Errors
    /// All that keeps rows from going there.
    pub(super) fn casts(&self, layout: &Layout) -> Result<Vec<String>> {
        let differences = self.differences(layout);
        if differences.is_empty() {
            let cast = |column: &Column| Some(self.column(&column.name)?.base.clone());
            return Ok(layout.columns.iter().filter_map(cast).collect());
        }
        let what = format!("table `{}` does not match the rows", layout.table);
        let error = differences
            .into_iter()
            .fold(Error::definition(what), Error::detail);
        Err(error.hint(format!(
            "alter the table, name another one, or drop it to have it created: {}",
            layout.create()
        )))
    }

    fn column(&self, name: &str) -> Option<&FoundColumn> {
        self.columns.iter().find(|found| found.name == name)
    }

    /// What is otherwise than rows need it, all of it.
    fn differences(&self, layout: &Layout) -> Vec<String> {
        let mut out = Vec::new();
        if !["r", "p"].contains(&&*self.kind) {
            out.push("it is a view or a foreign table".into());
        }
        if self.persistence != "p" {
            out.push("it is unlogged or temporary: a crash of the server would empty it".into());
        }
        for column in &layout.columns {
            let (name, declared) = (&column.name, column.store.declared());
            let Some(found) = self.column(name) else {
                out.push(format!("column `{name}` ({declared}) is missing"));
                continue;
            };
            if !column.store.fits(&found.ty) {
                out.push(format!("column `{name}` is {}; expected {declared}", found.ty));
            }
            if found.not_null && column.nullable {
                out.push(format!("column `{name}` is NOT NULL, but the field may be null"));
            }
            if found.generated {
                out.push(format!("column `{name}` is generated and cannot be written"));
            }
        }
        let is_own = |name: &str| layout.columns.iter().any(|column| column.name == name);
        for found in self.columns.iter().filter(|found| !is_own(&found.name)) {
            if found.not_null && !found.has_default && !found.generated {
                out.push(format!(
                    "column `{}` is NOT NULL without a default, and no field fills it",
                    found.name
                ));
            }
        }
        let mut keys: Vec<&str> = layout.columns[..layout.keys]
            .iter()
            .map(|key| &*key.name)
            .collect();
        keys.sort_unstable();
        let is_key = |index: &Vec<String>| {
            let mut names: Vec<&str> = index.iter().map(String::as_str).collect();
            names.sort_unstable();
            names == keys
        };
        if layout.keys > 0 && !self.unique.iter().any(is_key) {
            let keys = layout.names(..layout.keys).join(", ");
            out.push(format!("no primary key or unique index is on ({keys}) alone"));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::fields::FieldNames;
    use crate::schema::trace::trace;

    fn schema() -> RowSchema {
        let names = ["merchant".to_owned()];
        let names = FieldNames {
            key: &names,
            value: &[],
        };
        RowSchema::new("it", trace::<u32>(), trace::<(u64, Option<String>)>(), names).unwrap()
    }

    fn layout(method: Method) -> Layout {
        Layout::of(TableName::parse("spend").unwrap(), method, &schema()).unwrap()
    }

    #[test]
    fn statements_quote_names_and_bind_values() {
        let layout = Layout::of(
            TableName::parse("Odd\"name").unwrap(),
            Method::UpsertTo,
            &schema(),
        )
        .unwrap();
        assert_eq!(
            layout.create(),
            r#"CREATE TABLE "public"."Odd""name" ("merchant" bigint NOT NULL, "value_0" numeric(20) NOT NULL, "value_1" text, PRIMARY KEY ("merchant"))"#
        );
        let casts = ["bigint", "numeric", "text"].map(str::to_owned);
        assert_eq!(
            layout.insert(&casts),
            r#"INSERT INTO "public"."Odd""name" ("merchant", "value_0", "value_1") SELECT u.c0::bigint, u.c1::numeric, u.c2::text FROM unnest($1, $2, $3) AS u(c0, c1, c2) ON CONFLICT ("merchant") DO UPDATE SET "value_0" = EXCLUDED."value_0", "value_1" = EXCLUDED."value_1""#
        );
        assert_eq!(
            layout.delete(&casts),
            r#"DELETE FROM "public"."Odd""name" AS t USING unnest($1) AS u(c0) WHERE t."merchant" = u.c0::bigint"#
        );
    }

    #[test]
    fn a_changelog_has_what_was_before_and_after() {
        let layout = layout(Method::ChangesTo);
        let names: Vec<_> = layout.columns.iter().map(|column| &*column.name).collect();
        let expected = [
            "merchant",
            "epoch",
            "diff",
            "before_value_0",
            "before_value_1",
            "after_value_0",
            "after_value_1",
        ];
        assert_eq!(names, expected);
        assert!(layout.columns[3..].iter().all(|column| column.nullable));
        assert!(!layout.create().contains("PRIMARY KEY"));
    }

    #[test]
    fn all_differences_are_told() {
        let column = |name: &str, ty: &str, not_null| FoundColumn {
            name: name.into(),
            ty: ty.into(),
            base: ty.into(),
            not_null,
            ..FoundColumn::default()
        };
        let found = FoundTable {
            kind: "r".into(),
            persistence: "u".into(),
            columns: vec![
                column("merchant", "integer", true),
                column("value_1", "text", true),
                column("country", "text", true),
            ],
            unique: vec![vec!["merchant".into(), "country".into()]],
        };
        let text = found.casts(&layout(Method::UpsertTo)).unwrap_err().to_string();
        for part in [
            "`merchant` is integer; expected bigint",
            "`value_0` (numeric(20)) is missing",
            "`value_1` is NOT NULL, but the field may be null",
            "`country` is NOT NULL without a default",
            "unlogged",
            "no primary key or unique index is on (\"merchant\")",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn names_that_postgres_would_change_are_refused() {
        assert_eq!(TableName::parse("a.b").unwrap().quoted(), r#""a"."b""#);
        for name in ["", ".b", "a.", "a.b.c", &"x".repeat(64)] {
            assert!(TableName::parse(name).is_err(), "{name}");
        }
        let nullable = RowSchema::new(
            "it",
            trace::<Option<u32>>(),
            trace::<u64>(),
            FieldNames::default(),
        )
        .unwrap();
        let error = Layout::of(TableName::parse("t").unwrap(), Method::UpsertTo, &nullable).unwrap_err();
        assert!(error.to_string().contains("`key` may be null"), "{error}");
    }
}
