"""What makes cases or a cohort unusable, who the patients are, which images look alike, and how cases are split."""
