//! The fields of a schedule, read.
//!
//! The form is the one that the documentation of the Go library reugn/go-quartz gives, which the reference service reads
//! its schedules with; ranges that wrap around (`22-2`, `FRI-MON`) are from Quartz itself.

use std::collections::BTreeSet;

/// A field: what it is called, its numbers, and the names some of them have, from the first on.
struct Field {
    name: &'static str,
    first: u16,
    last: u16,
    names: &'static [&'static str],
}

const SECONDS: Field = Field { name: "seconds", first: 0, last: 59, names: &[] };
const MINUTES: Field = Field { name: "minutes", first: 0, last: 59, names: &[] };
const HOURS: Field = Field { name: "hours", first: 0, last: 23, names: &[] };
const DAY_OF_MONTH: Field = Field { name: "day-of-month", first: 1, last: 31, names: &[] };
const MONTH: Field = Field {
    name: "month",
    first: 1,
    last: 12,
    names: &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
};
const DAY_OF_WEEK: Field = Field {
    name: "day-of-week",
    first: 1,
    last: 7,
    names: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
};
// The last year is the last one that croner finds a time in.
const YEAR: Field = Field { name: "year", first: 1970, last: 4999, names: &[] };

/// The numbers that a field takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Numbers {
    All,
    Only(BTreeSet<u16>),
}

/// The days of the month that a schedule takes: what its two day fields say together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Days {
    Every,
    /// `1,15`
    OfMonth(BTreeSet<u16>),
    /// `L`, `L-3`: that many days before the last of the month; none where the month is too short.
    BeforeLast(u16),
    /// `15W`: the day from Monday to Friday of this month nearest to this one, or to the last of a shorter month, so that
    /// 31 is `LW`.
    NearestWorkday(u16),
    /// `MON-FRI`: days of the week, 1 = Sunday.
    OfWeek(BTreeSet<u16>),
    /// `6L`: the last Friday of the month.
    LastOfWeekday(u16),
    /// `6#3`: the third Friday of the month; none where there is no such.
    NthOfWeekday(u16, u16),
}

/// A schedule's fields. Together they say which wall clock times it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fields {
    pub seconds: Numbers,
    pub minutes: Numbers,
    /// Whether the minutes are every so many (`*`, `0/15`), not named ones.
    pub minutes_are_spaced: bool,
    pub hours: Numbers,
    pub days: Days,
    pub months: Numbers,
    pub years: Numbers,
}

impl Fields {
    /// Reads a schedule.
    ///
    /// # Errors
    /// Why it is none, to be said after its text.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim().to_ascii_uppercase();
        let text = if text.starts_with('@') { expand_macro(&text)? } else { &text };
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let (seconds, minutes, hours, day_of_month, month, day_of_week, year) = match fields[..] {
            [s, m, h, day, month, weekday] => (s, m, h, day, month, weekday, "*"),
            [s, m, h, day, month, weekday, year] => (s, m, h, day, month, weekday, year),
            _ => {
                return Err(format!(
                    "is not a schedule: it has {} fields, not 6 or 7: seconds minutes hours day-of-month month day-of-week [year]",
                    fields.len()
                ));
            }
        };
        let minute_numbers = MINUTES.numbers(minutes)?;
        Ok(Self {
            seconds: SECONDS.numbers(seconds)?,
            minutes_are_spaced: minute_numbers == Numbers::All || minutes.contains('/'),
            minutes: minute_numbers,
            hours: HOURS.numbers(hours)?,
            days: days(day_of_month, day_of_week)?,
            months: MONTH.numbers(month)?,
            years: YEAR.numbers(year)?,
        })
    }
}

fn expand_macro(text: &str) -> Result<&'static str, String> {
    match text {
        "@YEARLY" | "@ANNUALLY" => Ok("0 0 0 1 1 ?"),
        "@MONTHLY" => Ok("0 0 0 1 * ?"),
        "@WEEKLY" => Ok("0 0 0 ? * SUN"),
        "@DAILY" | "@MIDNIGHT" => Ok("0 0 0 * * ?"),
        "@HOURLY" => Ok("0 0 * * * ?"),
        _ => Err(
            "is not a schedule: write @yearly, @annually, @monthly, @weekly, @daily, @midnight or @hourly"
                .to_owned(),
        ),
    }
}

fn days(day_of_month: &str, day_of_week: &str) -> Result<Days, String> {
    let any = |field| matches!(field, "*" | "?");
    match (any(day_of_month), any(day_of_week)) {
        (true, true) => Ok(Days::Every),
        (false, true) => days_of_month(day_of_month),
        (true, false) => days_of_week(day_of_week),
        (false, false) => Err(format!(
            "is not a schedule: day-of-month {day_of_month} and day-of-week {day_of_week} cannot both be said: write ? in one of them"
        )),
    }
}

fn days_of_month(text: &str) -> Result<Days, String> {
    let field = &DAY_OF_MONTH;
    if text == "L" {
        return Ok(Days::BeforeLast(0));
    }
    if text == "LW" {
        return Ok(Days::NearestWorkday(DAY_OF_MONTH.last));
    }
    if let Some(days) = text.strip_prefix("L-") {
        return match number(days) {
            Some(days @ 1..=30) => Ok(Days::BeforeLast(days)),
            _ => Err(field.refuse(text, "is not one of L-1 to L-30")),
        };
    }
    if let Some(day) = text.strip_suffix('W') {
        return match number(day) {
            Some(day @ 1..=31) => Ok(Days::NearestWorkday(day)),
            _ => Err(field.refuse(text, "is not LW or one of 1W to 31W")),
        };
    }
    if text.contains(['L', 'W']) {
        return Err(field.refuse(text, "is not one of L, L-1 to L-30, LW and 1W to 31W, which stand alone"));
    }
    Ok(match field.numbers(text)? {
        Numbers::All => Days::Every,
        Numbers::Only(days) => Days::OfMonth(days),
    })
}

fn days_of_week(text: &str) -> Result<Days, String> {
    let field = &DAY_OF_WEEK;
    // Alone it is the last day of the week.
    if text == "L" {
        return Ok(Days::OfWeek(BTreeSet::from([field.last])));
    }
    if let Some((day, nth)) = text.split_once('#') {
        return match (field.number(day), number(nth)) {
            (Ok(day), Some(nth @ 1..=5)) => Ok(Days::NthOfWeekday(day, nth)),
            _ => Err(field.refuse(text, "is not a day and its number in the month, as 6#3 or FRI#3: days are 1 to 7 or SUN to SAT, numbers 1 to 5, and they stand alone")),
        };
    }
    if let Some(day) = text.strip_suffix('L') {
        return match field.number(day) {
            Ok(day) => Ok(Days::LastOfWeekday(day)),
            Err(_) => Err(field.refuse(
                text,
                "is not a last day, as 6L or FRIL: days are 1 to 7 or SUN to SAT, and it stands alone",
            )),
        };
    }
    Ok(match field.numbers(text)? {
        Numbers::All => Days::Every,
        Numbers::Only(days) => Days::OfWeek(days),
    })
}

/// A number of up to four digits.
fn number(text: &str) -> Option<u16> {
    let digits = (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

impl Field {
    fn refuse(&self, text: &str, why: &str) -> String {
        format!("is not a schedule: {} {text} {why}", self.name)
    }

    /// `*`, or a list of numbers, ranges and steps.
    fn numbers(&self, text: &str) -> Result<Numbers, String> {
        if text == "*" {
            return Ok(Numbers::All);
        }
        let mut numbers = BTreeSet::new();
        for item in text.split(',') {
            self.add(item, &mut numbers)?;
        }
        let all = numbers.len() == usize::from(self.last - self.first) + 1;
        Ok(if all { Numbers::All } else { Numbers::Only(numbers) })
    }

    /// Adds what one item of a list says: `5`, `5-30`, `5-30/5`, `5/5` (from 5 to the last) or `*/5` (from the first).
    fn add(&self, item: &str, numbers: &mut BTreeSet<u16>) -> Result<(), String> {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(self.step(item, step)?)),
            None => (item, None),
        };
        let (from, to) = match (range, step) {
            ("*", Some(_)) => (self.first, self.last),
            ("*" | "?", None) => return Err(self.refuse(range, self.alone(range))),
            _ => match range.split_once('-') {
                Some((from, to)) => (self.number(from)?, self.number(to)?),
                None if step.is_some() => (self.number(range)?, self.last),
                None => self.number(range).map(|number| (number, number))?,
            },
        };
        let span = self.last - self.first + 1;
        let end = match to < from {
            false => to,
            // Years do not come again.
            true if span > 60 => return Err(self.refuse(item, &format!("is backwards: write {to}-{from}"))),
            true => to + span,
        };
        let step = step.unwrap_or(1);
        numbers.extend((from..=end).step_by(step.into()).map(|n| (n - self.first) % span + self.first));
        Ok(())
    }

    fn alone(&self, text: &str) -> &'static str {
        let is_day = self.name.starts_with("day-");
        match text {
            "?" if !is_day => "says nothing here: write *; ? is for day-of-month or day-of-week",
            _ => "stands alone, not in a list",
        }
    }

    fn number(&self, text: &str) -> Result<u16, String> {
        let named = || self.names.iter().zip(self.first..).find(|(name, _)| **name == text).map(|(_, n)| n);
        number(text).filter(|number| (self.first..=self.last).contains(number)).or_else(named).ok_or_else(
            || {
                let names = match self.names {
                    [first, .., last] => format!(" or {first} to {last}"),
                    _ => String::new(),
                };
                let text = if text.is_empty() { "(nothing)" } else { text };
                self.refuse(text, &format!("is not one of {} to {}{names}", self.first, self.last))
            },
        )
    }

    fn step(&self, item: &str, text: &str) -> Result<u16, String> {
        number(text)
            .filter(|step| (1..=self.last).contains(step))
            .ok_or_else(|| self.refuse(item, &format!("has a step that is not one of 1 to {}", self.last)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(numbers: &[u16]) -> Numbers {
        Numbers::Only(numbers.iter().copied().collect())
    }

    fn minutes(text: &str) -> Numbers {
        Fields::parse(&format!("0 {text} 0 * * ?")).unwrap().minutes
    }

    fn days_in(day_of_month: &str, day_of_week: &str) -> Days {
        Fields::parse(&format!("0 0 0 {day_of_month} * {day_of_week}")).unwrap().days
    }

    #[test]
    fn lists_ranges_and_steps() {
        assert_eq!(minutes("*"), Numbers::All);
        assert_eq!(minutes("0-59"), Numbers::All);
        assert_eq!(minutes("7"), only(&[7]));
        assert_eq!(minutes("30,5,05"), only(&[5, 30]));
        assert_eq!(minutes("5-8"), only(&[5, 6, 7, 8]));
        assert_eq!(minutes("0/15"), only(&[0, 15, 30, 45]));
        assert_eq!(minutes("*/15"), only(&[0, 15, 30, 45]));
        assert_eq!(minutes("50/4"), only(&[50, 54, 58]));
        assert_eq!(minutes("5-20/5"), only(&[5, 10, 15, 20]));
        assert_eq!(minutes("5-20/59"), only(&[5]));
        assert_eq!(minutes("58-2"), only(&[0, 1, 2, 58, 59]));
        assert_eq!(minutes("50-10/7"), only(&[4, 50, 57]));
        assert_eq!(minutes("1,5-7,40/10"), only(&[1, 5, 6, 7, 40, 50]));
        let year = Fields::parse("0 0 0 1 1 ? 2024/1000").unwrap().years;
        assert_eq!(year, only(&[2024, 3024, 4024]));
    }

    #[test]
    fn names_are_numbers_in_any_case() {
        let fields = Fields::parse("0 0 0 ? nov-Feb,jun sun,TUE-wed").unwrap();
        assert_eq!(fields.months, only(&[1, 2, 6, 11, 12]));
        assert_eq!(fields.days, Days::OfWeek([1, 3, 4].into()));
        assert_eq!(days_in("?", "fri-MON"), Days::OfWeek([1, 2, 6, 7].into()));
        assert_eq!(days_in("?", "mon/3"), Days::OfWeek([2, 5].into()));
        assert_eq!(days_in("?", "1-7"), Days::Every);
    }

    #[test]
    fn days_of_their_own_kind() {
        assert_eq!(days_in("*", "?"), Days::Every);
        assert_eq!(days_in("?", "*"), Days::Every);
        assert_eq!(days_in("*", "*"), Days::Every);
        assert_eq!(days_in("28-3", "?"), Days::OfMonth([1, 2, 3, 28, 29, 30, 31].into()));
        assert_eq!(days_in("L", "?"), Days::BeforeLast(0));
        assert_eq!(days_in("L-3", "*"), Days::BeforeLast(3));
        assert_eq!(days_in("lw", "?"), Days::NearestWorkday(31));
        assert_eq!(days_in("15W", "?"), Days::NearestWorkday(15));
        assert_eq!(days_in("?", "L"), Days::OfWeek([7].into()));
        assert_eq!(days_in("?", "6L"), Days::LastOfWeekday(6));
        assert_eq!(days_in("?", "fril"), Days::LastOfWeekday(6));
        assert_eq!(days_in("*", "6#3"), Days::NthOfWeekday(6, 3));
        assert_eq!(days_in("?", "Tue#5"), Days::NthOfWeekday(3, 5));
    }

    #[test]
    fn macros_are_schedules() {
        for (name, text) in [
            ("@yearly", "0 0 0 1 1 ?"),
            ("@annually", "0 0 0 1 JAN *"),
            ("@monthly", "0 0 0 1 * ?"),
            ("@weekly", "0 0 0 ? * 1"),
            ("@daily", "0 0 0 * * ?"),
            ("@Midnight", "0 0 0 ? * *"),
            (" @hourly ", "0 0 * * * ? *"),
        ] {
            assert_eq!(Fields::parse(name), Fields::parse(text), "{name}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_field() {
        for (text, error) in [
            ("0 0 25 * * ?", "hours 25 is not one of 0 to 23"),
            ("60 0 0 * * ?", "seconds 60 is not one of 0 to 59"),
            ("0 -1 0 * * ?", "minutes (nothing) is not one of 0 to 59"),
            ("0 1,,2 0 * * ?", "minutes (nothing) is not one of 0 to 59"),
            ("0 1-2-3 0 * * ?", "minutes 2-3 is not one of 0 to 59"),
            ("0 00010 0 * * ?", "minutes 00010 is not one of 0 to 59"),
            ("0 +1 0 * * ?", "minutes +1 is not one of 0 to 59"),
            ("0 0 0 0 * ?", "day-of-month 0 is not one of 1 to 31"),
            ("0 0 0 1 foo ?", "month FOO is not one of 1 to 12 or JAN to DEC"),
            ("0 0 0 ? * 8", "day-of-week 8 is not one of 1 to 7 or SUN to SAT"),
            ("0 0 0 ? * 0", "day-of-week 0 is not one of 1 to 7 or SUN to SAT"),
            ("0 0 0 1 1 ? 1969", "year 1969 is not one of 1970 to 4999"),
            ("0 0 0 1 1 ? 2030-2028", "year 2030-2028 is backwards: write 2028-2030"),
            ("0 0/60 0 * * ?", "minutes 0/60 has a step that is not one of 1 to 59"),
            ("0 */0 0 * * ?", "minutes */0 has a step that is not one of 1 to 59"),
            ("0 1/2/3 0 * * ?", "minutes 1/2/3 has a step that is not one of 1 to 59"),
            ("0 /5 0 * * ?", "minutes (nothing) is not one of 0 to 59"),
            ("0 *,5 0 * * ?", "minutes * stands alone, not in a list"),
            ("0 0 0 ?,5 * *", "day-of-month ? stands alone, not in a list"),
            ("0 ? 0 * * ?", "minutes ? says nothing here: write *; ? is for day-of-month or day-of-week"),
            (
                "0 0 0 15 * MON",
                "day-of-month 15 and day-of-week MON cannot both be said: write ? in one of them",
            ),
            ("0 0 0 L-31 * ?", "day-of-month L-31 is not one of L-1 to L-30"),
            ("0 0 0 32W * ?", "day-of-month 32W is not LW or one of 1W to 31W"),
            ("0 0 0 W * ?", "day-of-month W is not LW or one of 1W to 31W"),
            (
                "0 0 0 L,15 * ?",
                "day-of-month L,15 is not one of L, L-1 to L-30, LW and 1W to 31W, which stand alone",
            ),
            (
                "0 0 0 ? * 8L",
                "day-of-week 8L is not a last day, as 6L or FRIL: days are 1 to 7 or SUN to SAT, and it stands alone",
            ),
            (
                "0 0 0 ? * 2#6",
                "day-of-week 2#6 is not a day and its number in the month, as 6#3 or FRI#3: days are 1 to 7 or SUN to SAT, numbers 1 to 5, and they stand alone",
            ),
            (
                "0 0 * * *",
                "it has 5 fields, not 6 or 7: seconds minutes hours day-of-month month day-of-week [year]",
            ),
            ("", "it has 0 fields, not 6 or 7: seconds minutes hours day-of-month month day-of-week [year]"),
            ("@every 5m", "write @yearly, @annually, @monthly, @weekly, @daily, @midnight or @hourly"),
        ] {
            let error = format!("is not a schedule: {error}");
            assert_eq!(Fields::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn what_the_reference_refuses_is_refused() {
        for bad in [
            "X * * * * *",
            "* * * * * * X",
            "1,X/1 * * * * *",
            "X-2 * * * * *",
            "100-200 * * * * *",
            "X-2/4 * * * * *",
            "*/X * * * * *",
            "0 5,7 14 1 * Sun *",
            "0 5,7 14 ? * 2#4,4L *",
            "0 0 0 * * -1#1",
            "0 0 0 ? * #1",
            "0 0 0 ? * 1#",
            "0 5,7 14 ? * -1L *",
            "0 15 10 W15 * ?",
            "0 15 10 L- * ?",
            "0 15 10 L-a * ?",
            "0 15 10 WL * ?",
            "0 0 0 1 1 ? 2024 2025",
            "0 0 0 1 \u{e9} ?",
        ] {
            assert!(Fields::parse(bad).is_err(), "{bad:?} was taken");
        }
    }
}
