//! When a routine runs: [`Schedule`], a cron expression of Quartz in a time zone.

mod calendar;
mod fields;
mod zone;

use std::fmt;

use chrono::{DateTime, NaiveDateTime, TimeDelta, Timelike, Utc};

pub use self::zone::Zone;
use crate::InvalidValue;
use calendar::Calendar;
use fields::{Fields, Numbers};

const SECOND: TimeDelta = TimeDelta::seconds(1);
const DAY: TimeDelta = TimeDelta::days(1);

/// When to run: a cron expression of Quartz, and the time zone whose clocks it goes by.
///
/// It has six or seven fields: seconds, minutes, hours, day of the month, month, day of the week (1 is Sunday), year; or is
/// one of `@yearly`, `@annually`, `@monthly`, `@weekly`, `@daily`, `@midnight` and `@hourly`. The form is that of
/// the Go library reugn/go-quartz, which the reference service uses, with the ranges of Quartz that wrap around (`FRI-MON`).
/// `L` alone as the day of the week is every Saturday, as its documentation says.
///
/// # When the clocks change
///
/// A schedule of named times, as 02:30 every day, runs once at each: at the first moment after the change if the clocks are
/// put forward over its time, and at the first of the two if they are put back over it.
///
/// A schedule that runs every so often (every hour of the day, or with minutes `*` or a step, as `0/15`) runs whenever the
/// clocks show one of its times, in both passes of a repeated hour. A time that the clocks skip is made up for at the
/// first moment after the change, unless the schedule runs anyway at the moment that the time would have been.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    text: String,
    zone: Zone,
    calendar: Calendar,
    /// Whether it runs every so often, and not at named times.
    spaced: bool,
}

/// When a wall clock time is, in UTC.
enum Moment {
    Once(NaiveDateTime),
    /// The clocks are put back over it.
    Twice(NaiveDateTime, NaiveDateTime),
    /// The clocks are put forward over it, at `change` by `skipped`.
    Never {
        change: NaiveDateTime,
        skipped: TimeDelta,
    },
}

impl Schedule {
    /// Reads a schedule for the clocks of a zone.
    ///
    /// # Errors
    /// The text is not a schedule, or one that never runs from now on.
    pub fn parse(text: &str, zone: Zone) -> Result<Self, InvalidValue> {
        let refuse = |reason| InvalidValue::new(text, reason);
        let fields = Fields::parse(text).map_err(refuse)?;
        let schedule = Self {
            text: text.trim().to_owned(),
            zone,
            calendar: Calendar::new(&fields).map_err(refuse)?,
            spaced: fields.hours == Numbers::All || fields.minutes_are_spaced,
        };
        if schedule.next_after(Utc::now()).is_some() {
            Ok(schedule)
        } else if schedule.next_after(DateTime::UNIX_EPOCH).is_some() {
            Err(refuse("never runs again: its years are over".to_owned()))
        } else {
            Err(refuse("never runs: no such day exists".to_owned()))
        }
    }

    /// The schedule as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The time zone it goes by.
    #[must_use]
    pub fn zone(&self) -> Zone {
        self.zone
    }

    /// The same by the clocks of another zone.
    #[must_use]
    pub(crate) fn in_zone(self, zone: Zone) -> Self {
        Self { zone, ..self }
    }

    /// The first time to run later than this, on a whole second; none when there is no more, up to the year 4999.
    #[must_use]
    pub fn next_after(&self, time: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let mut after = time.naive_utc().with_nanosecond(0)?;
        let mut wall = self.wall(after)?;
        if self.spaced
            && let Moment::Twice(first, second) = self.moment(wall)?
            && first == after
        {
            // The clocks will be put back over this time: there is a time to find before that, or in the second pass.
            let change = self.change(first, second);
            let ahead = wall - first;
            let next = self.calendar.next_after(wall).map(|next| next - ahead);
            if let Some(next) = next.filter(|next| *next < change) {
                return Some(next.and_utc());
            }
            after = change;
            wall = self.wall(change)? - SECOND;
        }
        loop {
            wall = self.calendar.next_after(wall)?;
            let next = match self.moment(wall)? {
                Moment::Once(moment) => moment,
                Moment::Twice(first, _) if first > after => first,
                Moment::Twice(_, second) if self.spaced => second,
                Moment::Never { change, skipped } if self.is_made_up_for(wall, change, skipped) => change,
                Moment::Twice(..) | Moment::Never { .. } => continue,
            };
            return Some(next.and_utc());
        }
    }

    /// Whether to run at the change of the clocks for a time that they skip.
    fn is_made_up_for(&self, wall: NaiveDateTime, change: NaiveDateTime, skipped: TimeDelta) -> bool {
        !self.spaced
            // It runs then anyway, and the times that are skipped need not be looked at one by one.
            || self.wall(change).is_some_and(|first| self.calendar.takes(first))
            || !self.calendar.takes(wall + skipped)
    }

    /// What the clocks show at a moment.
    fn wall(&self, moment: NaiveDateTime) -> Option<NaiveDateTime> {
        moment.checked_add_offset(self.zone.offset_at(moment))
    }

    /// When the clocks show a time. A zone changes its clocks at most once in two days.
    fn moment(&self, wall: NaiveDateTime) -> Option<Moment> {
        let before = self.zone.offset_at(wall.checked_sub_signed(DAY)?);
        let after = self.zone.offset_at(wall.checked_add_signed(DAY)?);
        let early = wall.checked_sub_offset(before)?;
        let late = wall.checked_sub_offset(after)?;
        let shows = |moment| self.wall(moment) == Some(wall);
        Some(match (shows(early), shows(late)) {
            (true, true) if early != late => Moment::Twice(early, late),
            (true, _) => Moment::Once(early),
            (false, true) => Moment::Once(late),
            (false, false) => Moment::Never { change: self.change(late, early), skipped: early - late },
        })
    }

    /// The moment at which the clocks change, which is after `before` and not after `after`.
    fn change(&self, mut before: NaiveDateTime, mut after: NaiveDateTime) -> NaiveDateTime {
        let old = self.zone.offset_at(before);
        while after - before > SECOND {
            let middle = before + TimeDelta::seconds((after - before).num_seconds() / 2);
            if self.zone.offset_at(middle) == old { before = middle } else { after = middle }
        }
        after
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
