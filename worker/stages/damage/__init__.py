"""Stage *damage*: what each arm takes from the model beside what it is for."""
